//! Owns how a scenario is run: on the stand-in as a test of its own, and on a real API server one
//! after the other, since they share it.

/// Makes a test on the stand-in of each scenario of a module, and one test on a real API server of
/// all.
macro_rules! scenarios {
    ($module:ident: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let program = std::path::Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
                let cluster = $crate::common::cluster::Cluster::stand_in(program).await;
                $module::$name(&cluster).await;
                $crate::common::rights::expect_kept(cluster.server().expect("it is the stand-in"));
            }
        )*

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn all_on_a_real_api_server() {
            use futures::FutureExt as _;
            let program = std::path::Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
            let cluster = $crate::common::cluster::Cluster::real(program).await;
            let Some(cluster) = cluster else { return };
            let mut failed = Vec::new();
            $(
                cluster.fresh().await;
                // Boxed, as the stack has no room for all of them at once.
                let scenario = Box::pin($module::$name(&cluster));
                let run = std::panic::AssertUnwindSafe(scenario).catch_unwind();
                let passed = run.await.is_ok();
                println!("{} on a real API server: {}", stringify!($name), if passed { "ok" } else { "FAILED" });
                if !passed {
                    failed.push(stringify!($name));
                }
            )*
            assert!(failed.is_empty(), "failed on a real API server: {failed:?}");
        }
    };
}
pub(crate) use scenarios;
