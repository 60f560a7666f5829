//! Owns `WOLService`, as the original Go implementation speaks it, so that its agents can report
//! to this manager during a migration. They send each packet once, and never again.

pub mod plaintext;

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    admin::Readiness,
    mac::MacAddr,
    manager::{
        identity::{Authenticator, Standing},
        metrics::{Metrics, Verdict},
        report::{Reply, Report, Reports},
        sessions::is_node_name,
        vm::Power,
    },
    packet::Trailing,
    rpc::{
        pb::{
            HealthCheckRequest, HealthCheckResponse, VmInfo, WolEvent, WolEventResponse,
            health_check_response, wol_event_response::Status as WolStatus,
            wol_service_server::WolService,
        },
        station,
    },
    wake::{Answer, Carrier, Origin, Outcome, Wake},
};

/// A caller hears something within this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Events of one stream that wait for their answers at once.
const MAX_WAITING: usize = 64;

/// Serves the agents of the original implementation.
#[derive(Clone)]
pub struct Legacy {
    /// Who a caller is. Those of the original implementation can prove nothing, so that they are
    /// served only by one that [believes](Authenticator::believing) them.
    pub authenticator: Arc<Authenticator>,
    /// Where events go.
    pub reports: Arc<dyn Reports>,
    /// What is counted.
    pub metrics: Metrics,
    /// What `HealthCheck` tells.
    pub readiness: Readiness,
    /// Ends the streams.
    pub token: CancellationToken,
}

impl Legacy {
    async fn report(&self, event: WolEvent, proven: Option<Arc<str>>) -> WolEventResponse {
        let began = Instant::now();
        let target = event.mac_address.parse().map_err(|e| format!("{e}"));
        let target = target.and_then(|mac| station(mac).map_err(|e| format!("{e}")));
        let target = match target {
            Ok(target) => target,
            Err(message) => {
                self.metrics.reported(Verdict::Invalid);
                return response(WolStatus::Error, message, began);
            }
        };
        let wake = wake(target, &event);
        let (sender, mut answers) = mpsc::channel(2);
        let vm = self.reports.vm(&wake);
        self.reports.report(Report {
            node: proven.unwrap_or_else(|| named(&event)),
            wake,
            // Its time stamp is by another clock, and it is never sent twice.
            heard_at: began.into_std(),
            deferred: false,
            reply: Reply::new(0, sender),
        });
        let answer = tokio::time::timeout(crate::pace::of(ANSWER_WITHIN), answers.recv()).await;
        let (status, message) = match answer {
            Ok(Some((_, Answer::Final(outcome, message)))) => (status(outcome), message),
            Ok(Some((_, Answer::Deferred(_, message)))) => (WolStatus::Accepted, message),
            Ok(None) | Err(_) => (WolStatus::Accepted, "not settled yet".into()),
        };
        WolEventResponse {
            vm_info: vm.map(|vm| VmInfo {
                name: vm.key.name.to_string(),
                namespace: vm.key.namespace.to_string(),
                current_state: state(vm.power).into(),
            }),
            ..response(status, message, began)
        }
    }
}

/// The node that an event names.
fn named(event: &WolEvent) -> Arc<str> {
    if is_node_name(&event.node_name) {
        event.node_name.as_str().into()
    } else {
        "unknown".into()
    }
}

fn wake(target: MacAddr, event: &WolEvent) -> Wake {
    Wake {
        target,
        trailing: Trailing::default(),
        origin: Origin {
            carrier: Carrier::Udp,
            interface: "".into(),
            vlan: None,
            source_mac: None,
            source: event
                .source_ip
                .parse()
                .ok()
                .map(|ip: IpAddr| ip.to_canonical()),
            source_port: u16::try_from(event.source_port).unwrap_or(0),
            length: event.packet_size,
        },
    }
}

/// The state of a VM in KubeVirt's words, as far as we keep it.
fn state(power: Power) -> &'static str {
    match power {
        Power::Off | Power::Unsupported(_) => "Stopped",
        Power::On => "Running",
        Power::Paused => "Paused",
        Power::Stuck(status) => status,
        Power::Stopping => "Stopping",
        Power::Receiver => "WaitingForReceiver",
        Power::Gone => "Terminating",
    }
}

fn status(outcome: Outcome) -> WolStatus {
    match outcome {
        Outcome::Started => WolStatus::VmStartInitiated,
        Outcome::AlreadyOn => WolStatus::VmAlreadyRunning,
        Outcome::Duplicate => WolStatus::Duplicate,
        Outcome::NotFound | Outcome::NotSelected => WolStatus::VmNotFound,
        Outcome::Ambiguous
        | Outcome::Unsupported
        | Outcome::WrongPassword
        | Outcome::Forbidden
        | Outcome::Expired
        | Outcome::Invalid
        | Outcome::Stuck
        | Outcome::Gone
        | Outcome::Unknown => WolStatus::Error,
    }
}

fn response(status: WolStatus, message: String, began: Instant) -> WolEventResponse {
    WolEventResponse {
        status: status.into(),
        message,
        vm_info: None,
        was_duplicate: status == WolStatus::Duplicate,
        processing_time_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
    }
}

type Answers = BoxStream<'static, Result<WolEventResponse, Status>>;

/// Ends a stream when its caller may not be served any longer, and says so in it.
fn while_admitted(answers: Answers, standing: Standing) -> Answers {
    let next = |state: Option<(Answers, Standing)>| async move {
        let (mut answers, mut standing) = state?;
        tokio::select! {
            biased;
            refusal = standing.ended() => Some((Err(refusal.into()), None)),
            answer = answers.next() => Some((answer?, Some((answers, standing)))),
        }
    };
    stream::unfold(Some((answers, standing)), next).boxed()
}

#[tonic::async_trait]
impl WolService for Legacy {
    type ReportWOLEventStreamStream = Answers;

    async fn report_wol_event(
        &self,
        request: Request<WolEvent>,
    ) -> Result<Response<WolEventResponse>, Status> {
        let standing = self.authenticator.admit(&request).await?;
        let answer = self.report(request.into_inner(), standing.node().cloned());
        Ok(Response::new(answer.await))
    }

    async fn report_wol_event_stream(
        &self,
        request: Request<Streaming<WolEvent>>,
    ) -> Result<Response<Self::ReportWOLEventStreamStream>, Status> {
        let standing = self.authenticator.admit(&request).await?;
        let (legacy, node) = (self.clone(), standing.node().cloned());
        let answers = request
            .into_inner()
            .map(move |event| {
                let (legacy, node) = (legacy.clone(), node.clone());
                async move { Ok(legacy.report(event?, node).await) }
            })
            .buffered(MAX_WAITING)
            .take_until(self.token.clone().cancelled_owned());
        Ok(Response::new(while_admitted(answers.boxed(), standing)))
    }

    async fn health_check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        use health_check_response::Status::{NotServing, Serving};
        let ready = self.readiness.waiting_for().is_empty();
        let status = if ready { Serving } else { NotServing };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }
}
