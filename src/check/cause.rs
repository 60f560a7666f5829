//! Owns [`Check`], what is looked at, and [`Cause`], what can be wrong with it: each with a stable
//! word, how bad it is, and what helps.

use super::Status::{self, Problem, Unknown, Warning};

/// What is looked at. The word for it is the name of the variant, written `like-this`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The API server answers.
    Api,
    /// `WolConfig` is served, in this version and with this schema.
    Crd,
    /// The cluster has KubeVirt.
    Kubevirt,
    /// The managers may start VMs.
    Start,
    /// The managers have their other rights.
    Rights,
    /// Managers run.
    Managers,
    /// The Service leads to them.
    Service,
    /// The certificates that agents trust.
    CaBundle,
    /// Where the managers' CA is kept.
    CaSecret,
    /// Managers can be connected to.
    Connection,
    /// Agents run on the nodes.
    Agents,
    /// The agents have sessions, and hear.
    Sessions,
    /// One manager writes the statuses.
    Leader,
    /// There are configs.
    Configs,
    /// Their conditions.
    Conditions,
    /// Addresses that several VMs have.
    Conflicts,
    /// VMs that no packet starts.
    Unwakeable,
}

impl Check {
    /// All of them, in the order in which they are looked at.
    pub const ALL: [Self; 17] = [
        Self::Api,
        Self::Crd,
        Self::Kubevirt,
        Self::Start,
        Self::Rights,
        Self::Managers,
        Self::Service,
        Self::CaBundle,
        Self::CaSecret,
        Self::Connection,
        Self::Agents,
        Self::Sessions,
        Self::Leader,
        Self::Configs,
        Self::Conditions,
        Self::Conflicts,
        Self::Unwakeable,
    ];

    /// What is looked at, for people.
    #[must_use]
    pub const fn about(self) -> &'static str {
        match self {
            Self::Api => "the API server answers, and takes your credentials",
            Self::Crd => {
                "the API server knows WolConfig, as this version of the program defines it"
            }
            Self::Kubevirt => "the cluster has VirtualMachines, and the API that starts them",
            Self::Start => "the managers may start and unpause VMs",
            Self::Rights => "the managers have the rest of their rights",
            Self::Managers => "the Deployment of the managers is there, and its pods are ready",
            Self::Service => "the Service by which agents find the managers leads to ready ones",
            Self::CaBundle => "the ConfigMap by which agents know the managers holds certificates",
            Self::CaSecret => "the Secret in which the managers keep their CA is there",
            Self::Connection => "a TLS connection to each manager works, as an agent makes it",
            Self::Agents => {
                "the DaemonSet of the agents is there, and an agent is ready on each node"
            }
            Self::Sessions => "every agent has a session with a manager, and can listen as asked",
            Self::Leader => {
                "one of the managers holds the Lease, and so writes what the others find"
            }
            Self::Configs => "there are WolConfigs, and a manager has looked at each",
            Self::Conditions => "the conditions of each WolConfig are as they should be",
            Self::Conflicts => "no two VMs have one address",
            Self::Unwakeable => "a packet can start every VM that a WolConfig selects",
        }
    }
}

/// Makes [`Cause`] of its rows: what it is about, how bad it is, its name, and what helps.
macro_rules! causes {
    ($($check:ident $status:ident $name:ident $remedy:literal)*) => {
        /// What is wrong. The word for it is the name of the variant, written `like-this`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "what each means is told by its words and its remedy")]
        pub enum Cause {
            $($name,)*
            /// May concern any check: a right is missing to look.
            MayNotLook,
            /// May concern any check: the API server could not answer.
            CannotLook,
        }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] =
                &[$(Self::$name,)* Self::MayNotLook, Self::CannotLook];

            /// What it is about, how bad it is, and what helps.
            const fn row(self) -> (Option<Check>, Status, &'static str) {
                match self {
                    $(Self::$name => (Some(Check::$check), $status, $remedy),)*
                    Self::MayNotLook => (
                        None,
                        Unknown,
                        "ask an administrator for that right, or to run this",
                    ),
                    Self::CannotLook => (None, Unknown, "try again; the API server's log may say more"),
                }
            }
        }
    };
}

causes! {
    Api Problem NoCluster
        "name the cluster: set KUBECONFIG to a kubeconfig file, or run this in a pod with a service account"
    Api Problem NoAnswer
        "is it the right cluster? KUBECONFIG names it; kubectl version tells whether it answers others"
    Api Problem NotLoggedIn
        "log in again; kubectl auth whoami tells who you are"
    Crd Problem CrdMissing
        "install it: kubevirt-wol crd | kubectl apply -f -"
    Crd Problem CrdNotServed
        "see why with kubectl describe crd wolconfigs.wol.pillon.org, or install it again: kubevirt-wol crd | kubectl apply -f -"
    Crd Warning CrdDiffers
        "install that of this version: kubevirt-wol crd | kubectl apply -f -"
    Kubevirt Problem KubevirtMissing
        "install KubeVirt: https://kubevirt.io/user-guide/cluster_admin/installation"
    Kubevirt Problem StartApiMissing
        "see whether virt-operator and virt-api run: kubectl get kubevirt,pods -A -l kubevirt.io"
    Kubevirt Problem StartApiUnavailable
        "see why with kubectl describe apiservice v1.subresources.kubevirt.io, and whether virt-api runs: kubectl get pods -A -l kubevirt.io=virt-api"
    Start Problem StartForbidden
        "give the managers their rights: kubectl apply -f deploy/base/rbac.yaml"
    Rights Problem RightsMissing
        "give the managers their rights: kubectl apply -f deploy/base/rbac.yaml. A SecureOn Secret of another name needs a rule of its own"
    Managers Problem DeploymentMissing
        "is NAMESPACE the right one? --namespace and --deployment say where to look; else install the program"
    Managers Problem NoManagerReady
        "see why: kubectl -n NAMESPACE describe pods -l app.kubernetes.io/component=manager, and kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    Managers Warning ManagersNotReady
        "the others serve meanwhile; see why: kubectl -n NAMESPACE get pods, and kubectl -n NAMESPACE logs of the one that is not ready"
    Service Problem ServiceMissing
        "is NAMESPACE the right one? --namespace and --service say where to look; else install the Service again"
    Service Problem NoEndpointReady
        "are managers ready, and does its selector match their labels? kubectl -n NAMESPACE describe service SERVICE"
    Service Warning ServiceNotHeadless
        "agents find one manager only, where they should have a session with each: delete the Service, and install it with clusterIP: None"
    CaBundle Problem BundleMissing
        "make it, empty; managers fill it: kubectl apply -f deploy/base/trust.yaml"
    CaBundle Problem BundleEmpty
        "managers fill it once they are ready and may; their log says why not: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    CaBundle Problem BundleUnreadable
        "empty it, and managers write it anew: kubectl -n NAMESPACE patch configmap BUNDLE --type=merge -p '{\"data\":null}'"
    CaBundle Problem BundleExpired
        "managers renew it in time where they can; their log says why not: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    CaBundle Warning BundleExpiring
        "managers renew it when a third of its time is left; their log says why not: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    CaSecret Problem SecretMissing
        "make it, empty; managers put back what they know: kubectl apply -f deploy/base/trust.yaml"
    Connection Problem NameUnknown
        "does the cluster's DNS work, and is there a Service SERVICE with ready managers in NAMESPACE?"
    Connection Problem NotReached
        "does a NetworkPolicy or a firewall keep TCP port 9090 of the managers' pods from being reached, and do they listen there?"
    Connection Unknown NotReachable
        "pods are seldom reached from outside of the cluster. Run this in a pod, or try by way of the API server: kubectl -n NAMESPACE port-forward deploy/DEPLOYMENT 9090, and then kubevirt-wol check --manager localhost:9090"
    Connection Problem NotTrusted
        "agents refuse it, too. Where the managers' certificates are your own (--tls-dir), name their authority with --ca-file; else the managers' log says what they do about it: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    Connection Warning CertificateExpiring
        "a manager renews its certificate in good time, or takes over the renewed file; its log says why not: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    Agents Problem DaemonSetMissing
        "is NAMESPACE the right one? --namespace and --agent-daemon-set say where to look; else install the agents"
    Agents Problem NotOnHostNetwork
        "agents hear the pod's network instead of the node's: set hostNetwork: true in the DaemonSet's template"
    Agents Problem NoNodes
        "no node is chosen: look at nodeSelector, affinity and tolerations of the DaemonSet"
    Agents Problem NoAgentReady
        "see why: kubectl -n NAMESPACE describe pods -l app=wol-agent, and kubectl -n NAMESPACE logs -l app=wol-agent"
    Agents Warning AgentsNotReady
        "packets that only these nodes hear wake nothing; see why: kubectl -n NAMESPACE get pods -l app=wol-agent -o wide, and the log of those that are not ready"
    Sessions Problem NoSession
        "no packet is reported by anybody; agents say why in their log: kubectl -n NAMESPACE logs -l app=wol-agent --tail=50"
    Sessions Warning SessionsMissing
        "those without a session say why in their log: kubectl -n NAMESPACE logs -l app=wol-agent --tail=50 --prefix"
    Sessions Warning NodesTroubled
        "free the port that another program holds there, or ask for another with wolPorts; the agent's log says more"
    Leader Warning NoLeader
        "a manager takes it within seconds; where this stays, its log says why: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    Configs Problem NoConfig
        "nothing is wakeable without one; this sample makes every VM wakeable: kubectl apply -f deploy/samples/wol_v1beta1_wolconfig.yaml"
    Configs Problem ConfigUnreadable
        "this version cannot read it, so it allows nothing; correct it with kubectl edit wolconfig, or upgrade the program"
    Configs Warning StatusOutdated
        "no manager has looked at it yet, so that what is said of it here is old; see whether managers run"
    Conditions Problem NotReady
        "what it says is what to do; kubectl describe wolconfig shows all of it"
    Conditions Warning Degraded
        "correct the field, or the node, that it names; kubectl describe wolconfig shows all of it"
    Conditions Warning SecureOnBypassed
        "set secureOn in the other WolConfig, too, or leave these VMs out of it"
    Conditions Warning CacheStale
        "wakes wait until the managers can watch the API server again; their log says why they cannot: kubectl -n NAMESPACE logs deploy/DEPLOYMENT"
    Conditions Warning AgentFieldsIgnored
        "say where agents run in their DaemonSet, and take agent out of the WolConfig"
    Conflicts Problem SharedAddress
        "no packet wakes these VMs: give each an address of its own, or name the one that is meant in explicitMappings"
    Unwakeable Warning NoPacketStarts
        "do what it says, or leave these VMs out of the WolConfig; docs/vm-states.md has every state"
}

impl Cause {
    /// What it is about; none where it may be anything.
    #[must_use]
    pub const fn check(self) -> Option<Check> {
        self.row().0
    }

    /// How bad it is.
    #[must_use]
    pub const fn status(self) -> Status {
        self.row().1
    }

    /// What helps. NAMESPACE and the like stand for what the installation calls them.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        self.row().2
    }
}
