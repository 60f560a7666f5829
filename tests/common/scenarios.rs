//! How a scenario becomes tests: one on the API stand-in, and one on a real API server.

/// Makes a test on the stand-in of each scenario in `mod scenarios`, and one test on a real API
/// server of all.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let program = std::path::Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
                let cluster = $crate::common::cluster::Cluster::stand_in(program).await;
                scenarios::$name(&cluster).await;
            }
        )*

        /// One after the other, since they share the server.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn all_on_a_real_api_server() {
            use futures::FutureExt as _;

            let program = std::path::Path::new(env!("CARGO_BIN_EXE_kubevirt-wol"));
            let cluster = $crate::common::cluster::Cluster::real(program).await;
            let Some(cluster) = cluster else { return };
            let mut failed = Vec::new();
            $(
                cluster.fresh().await;
                let run = std::panic::AssertUnwindSafe(scenarios::$name(&cluster)).catch_unwind();
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
