mod common;
#[tokio::test]
async fn serve() {
    let server = common::apiserver::ApiServer::bind(([127, 0, 0, 1], 18080).into()).await;
    std::fs::write("/tmp/apiw/kc", server.kubeconfig()).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
}
