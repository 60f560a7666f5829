# Recipes for people; each is one command that can also be typed. `just --list` shows them.

[private]
default:
    @just --list

# What is deployed, with the image that IMG names.
rendered := 'kubectl kustomize deploy/base | sed "${IMG:+s|image: kubevirt-wol:.*|image: $IMG|}"'
openshift := 'kubectl kustomize deploy/overlays/openshift | sed "${IMG:+s|image: kubevirt-wol:.*|image: $IMG|}"'

# Build the program: one binary is manager, agent, crd and send.
build:
    cargo build --release --locked

# The same file as build-agent: there is one binary.
build-manager: build

# The same file as build-manager: there is one binary.
build-agent: build

# PROGRAM names a program that is compiled already, PLATFORMS others than this machine's (linux/arm64, or
# linux/amd64,linux/arm64), TOOL one of docker, podman and buildah.
# IMG=registry/kubevirt-wol:tag just docker-build-all: there is one image.
# Make the image of managers and agents.
docker-build-all:
    deploy/image/build

# The same image as docker-build-agent: there is one.
docker-build-manager: docker-build-all

# The same image as docker-build-manager: there is one.
docker-build-agent: docker-build-all

# Push the image that IMG names.
docker-push-all:
    deploy/image/push

# Compile the program as the image has it: static, for ARCH amd64 or arm64, without a container.
static ARCH="amd64" FILE="target/image/kubevirt-wol":
    deploy/image/compile {{ARCH}} {{FILE}}

# See a magic packet start a VM, without a cluster and without root.
demo:
    cargo run --release --locked --example demo

# Run every test that needs no cluster and no root.
test:
    cargo test --locked

# Format the code.
fmt:
    cargo fmt

# Refuse what clippy, rustfmt and rustdoc complain about.
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

# promtool is part of Prometheus; it takes what the operator's object wraps.
# Check the alerts, and that each fires when it should and only then.
rules:
    mkdir -p target/rules
    sed '1,/^spec:/d; s/^  //' deploy/components/prometheus/rules.yaml > target/rules/rules.yaml
    cp deploy/components/prometheus/rules_test.yaml target/rules/
    promtool check rules target/rules/rules.yaml
    promtool test rules target/rules/rules_test.yaml

# Refuse licences and crates that deny.toml does not allow.
deny:
    cargo deny --locked check bans licenses sources

# just bench wake_path floods: NAME is one of benches/, what follows chooses among its figures.
# Benches unwind; a program that aborts instead would need a second build of every crate.
# Measure, and print the figures beside the budgets of docs/performance.md.
bench NAME="*" *ARGS:
    CARGO_PROFILE_RELEASE_PANIC=unwind cargo bench --locked --bench '{{NAME}}' -- {{ARGS}}

# just fuzz frame 60: TARGET is one of fuzz/targets/; what follows are options of libFuzzer.
# Look for bytes that break a parser; fuzz/README.md says what to do with what is found.
fuzz TARGET SECONDS="60" *ARGS:
    mkdir -p fuzz/target/found/{{TARGET}}
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{TARGET}} fuzz/target/found/{{TARGET}} fuzz/corpus/{{TARGET}} -- \
        -dict=fuzz/dictionary -timeout=5 -max_total_time={{SECONDS}} {{ARGS}}

# Compile the wire protocol; every build does it, in Rust, without protoc.
proto:
    cargo check --locked

# They are moved when they are whole: a program that does not compile leaves what is there.
# The definition and the rights go into the base and into the chart, and the base into one file.
# Write what deploy/ has of the code.
manifests:
    mkdir -p target/manifests
    cargo run --locked --quiet -- crd > target/manifests/crd.yaml
    cargo run --locked --quiet --example rbac > target/manifests/rbac.yaml
    mv target/manifests/crd.yaml target/manifests/rbac.yaml deploy/base/
    cp deploy/base/crd.yaml deploy/base/rbac.yaml deploy/components/prometheus/rules.yaml deploy/chart/files/
    env -u IMG deploy/render > deploy/install.yaml

# Write deploy/chart/README.md from its values.yaml.
chart-readme:
    go run github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2 --chart-search-root deploy/chart --log-level warning

# Refuse what linters and schemas say against Containerfile, manifests and chart.
packaging:
    deploy/lint

# Write everything that is generated.
generate: proto manifests chart-readme

# Install the CustomResourceDefinition into the cluster of the current kubeconfig.
install:
    cargo run --locked --quiet -- crd | kubectl apply -f -

# IMG=registry/kubevirt-wol:tag just deploy-all: without IMG, the image is kubevirt-wol of this version.
# Install all of it into the cluster of the current kubeconfig; what it is to do says a WolConfig.
deploy-all:
    {{rendered}} | kubectl apply -f -

# The same without the agents.
deploy:
    {{rendered}} | kubectl apply -l app.kubernetes.io/component!=agent -f -

# The agents, which managers have to be deployed for sooner or later.
deploy-agent:
    kubectl apply -f deploy/base/namespace.yaml
    {{rendered}} | kubectl apply -l app.kubernetes.io/component=agent -f -

# All of it on OpenShift, with SecurityContextConstraints of its own.
deploy-openshift:
    {{openshift}} | kubectl apply -f -

# The CustomResourceDefinition stays, and so do the WolConfigs.
# Remove managers, agents, and their namespace with all that is in it.
undeploy:
    {{rendered}} | kubectl delete --ignore-not-found -l app.kubernetes.io/component -f -
    kubectl delete --ignore-not-found -f deploy/base/namespace.yaml

# Apply the sample WolConfig.
sample:
    kubectl apply -f deploy/samples/wol_v1beta1_wolconfig.yaml

# Insecure, as an agent outside of a pod has no token; nobody else reaches 127.0.0.1.
# Run a manager against the current kubeconfig, for agents on this machine.
run:
    cargo run --locked -- manager --insecure --grpc-bind 127.0.0.1:9090 --admin-bind 127.0.0.1:8081 --namespace default

# WOL_PORT=40009 NODE_NAME=test-node just run-agent: the port is for those who may not bind 9.
# Run an agent that reports to `just run`, on the node that NODE_NAME names.
run-agent:
    cargo run --locked -- agent --insecure --manager 127.0.0.1:9090

# IMG=registry/kubevirt-wol:tag just e2e: WAYS is kustomize, helm or both; tests/e2e/run says more.
# Install it on the cluster of KUBECONFIG, wake VMs, roll the agents over, and remove it again.
e2e *WAYS:
    tests/e2e/run {{WAYS}}
