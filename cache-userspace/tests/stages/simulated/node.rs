//! A node without a kernel: the path as `app` builds it, and clients whose connections are taken for redirected ones.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sidestep::accept::netns::{Netns, SocketMaker};
use sidestep::accept::sniff;
use sidestep::admin::explain::{BadQuestion, Explanation, Question};
use sidestep::admin::{Counters, Figures, Switch};
use sidestep::config::Limits;
use sidestep::identify::Workload;
use sidestep::policy::Rules;
use sidestep::policy::StaleAfter;
use sidestep::redirect::bypass::Bypass;
use sidestep::redirect::enrolled::{Enrolled, Records};
use sidestep::request::explain::Asker;
use sidestep::request::{Connection, Parts, Path};
use sidestep::route::Routes;
use sidestep::store::{Store, StoreLimits};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::scratch::Scratch;
use super::{Message, Origin, Wire, within};

/// How many bytes the kernel keeps of a client that is short of room.
const SMALL_BUFFER_BYTES: u32 = 16 * 1024;

/// A node in front of one destination.
pub(crate) struct Node {
    path: Arc<Path>,
    switch: Arc<Switch>,
    destination: SocketAddr,
    next_id: AtomicU64,
    _scratch: Scratch,
}

impl Node {
    /// One with the default limits.
    pub(crate) fn before(origin: &Origin) -> Self {
        Self::with(origin, Limits::default())
    }

    /// One with limits of the test's own.
    pub(crate) fn with(origin: &Origin, limits: Limits) -> Self {
        Self::of(origin.address(), limits, false, Rules::default())
    }

    /// One that refuses what is not well-formed.
    pub(crate) fn strict(origin: &Origin) -> Self {
        Self::of(origin.address(), Limits::default(), true, Rules::default())
    }

    /// One with rules of the test's own.
    pub(crate) fn by(rules: Rules, origin: &Origin) -> Self {
        Self::of(origin.address(), Limits::default(), false, rules)
    }

    /// One that does not wait for late answers.
    pub(crate) fn impatient(late_after: StaleAfter, rules: Rules, origin: &Origin) -> Self {
        let rules = Rules { late_after: Some(late_after), ..rules };
        Self::of(origin.address(), Limits::default(), false, rules)
    }

    fn of(destination: SocketAddr, limits: Limits, is_strict: bool, rules: Rules) -> Self {
        let scratch = Scratch::new();
        let switch = Arc::new(Switch::new(scratch.path(), &scratch.path().join("admin.sock")));
        switch.took_effect(true);
        let counters = Arc::new(Counters::default());
        let parts = Parts {
            routes: Routes::new(rules, switch.clone()),
            store: Store::new(StoreLimits::default()),
            sockets: SocketMaker::start().unwrap(),
            bypass: Bypass::new(None, &limits),
            hot: None,
            counters,
            is_strict,
        };
        let path = Path::new(parts, limits);
        Self { path: Arc::new(path), switch, destination, next_id: AtomicU64::new(1), _scratch: scratch }
    }

    /// Switches caching as the heartbeat would.
    pub(crate) fn switch(&self, on: bool) {
        self.switch.took_effect(on);
    }

    /// Ends connections as a daemon that drains does.
    pub(crate) fn end(&self) {
        self.path.routes.end();
    }

    /// What would become of a GET of this target with these fields.
    pub(crate) fn explain(&self, target: &str, fields: &[(&str, &str)]) -> Explanation {
        self.explain_to(&format!("http://origin.test:{}{target}", self.destination.port()), fields).unwrap()
    }

    /// The same of any URL; the Host is the one that clients send.
    pub(crate) fn explain_to(&self, url: &str, fields: &[(&str, &str)]) -> Result<Explanation, BadQuestion> {
        self.explain_by("GET", url, fields)
    }

    /// The same of any method.
    pub(crate) fn explain_by(
        &self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
    ) -> Result<Explanation, BadQuestion> {
        let host = [("Host", "origin.test")];
        let fields = host.iter().chain(fields).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let question = Question {
            url: url.to_owned(),
            method: method.to_owned(),
            fields: fields.collect(),
            ..Question::default()
        };
        let ports = vec![self.destination.port()];
        let asker = Asker { workload: self.connection("default").workload.clone(), ports: Some(ports) };
        self.path.explain(&question, &[asker])
    }

    /// The figures now.
    pub(crate) fn figures(&self) -> Figures {
        self.path.counters.figures()
    }

    /// A new connection of the workload.
    pub(crate) async fn client(&self) -> Client {
        self.connect(None, self.connection("default")).await
    }

    /// A new connection of a workload in another namespace.
    pub(crate) async fn client_of(&self, namespace: &str) -> Client {
        self.connect(None, self.connection(namespace)).await
    }

    /// A new connection that these records speak of.
    pub(crate) async fn enrolled_client(&self, records: Arc<dyn Records>) -> Client {
        let connection = self.connection("default").with_enrolled(Enrolled::find(records, 1), false);
        self.connect(None, connection).await
    }

    /// Waits until the figures are so.
    pub(crate) async fn reaches(&self, condition: impl Fn(&Figures) -> bool) {
        within("figures", async {
            while !condition(&self.figures()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A new connection for which the kernel keeps little on either side, so that backpressure shows early.
    pub(crate) async fn client_with_small_buffers(&self) -> Client {
        self.connect(Some(SMALL_BUFFER_BYTES), self.connection("default")).await
    }

    async fn connect(&self, buffer_bytes: Option<u32>, connection: Connection) -> Client {
        let [listening, connecting] = [(); 2].map(|()| {
            let socket = TcpSocket::new_v4().unwrap();
            if let Some(bytes) = buffer_bytes {
                socket.set_recv_buffer_size(bytes).unwrap();
                socket.set_send_buffer_size(bytes).unwrap();
            }
            socket
        });
        listening.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = listening.listen(1).unwrap();
        let connected = connecting.connect(listener.local_addr().unwrap());
        let (stream, accepted) = tokio::join!(connected, listener.accept());
        let (stream, (accepted, _)) = (stream.unwrap(), accepted.unwrap());
        stream.set_nodelay(true).unwrap();
        accepted.set_nodelay(true).unwrap();
        let served = tokio::spawn(sniff::serve(accepted, self.path.clone(), connection));
        Client { wire: Wire::new(stream), served }
    }

    fn connection(&self, namespace: &str) -> Connection {
        let identity = [namespace, "default"].map(str::to_owned);
        let workload = Workload::new("simulated".to_owned(), identity, 1, (Netns::Own, 1), 1);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Connection::new(Arc::new(workload), self.destination, None, id)
    }
}

/// A client's end of a connection that the node serves.
pub(crate) struct Client {
    wire: Wire,
    served: JoinHandle<()>,
}

impl Client {
    /// Sends a GET and reads its answer.
    pub(crate) async fn get(&mut self, target: &str) -> Message {
        self.send(super::get(target)).await;
        self.response("GET").await
    }

    /// Sends a GET and lets the origin's connection answer it.
    pub(crate) async fn get_from(&mut self, target: &str, server: &mut Wire, answer: &str) -> Message {
        self.send(super::get(target)).await;
        assert_eq!(server.request().await.target(), target);
        server.send(answer).await;
        self.response("GET").await
    }

    /// The same by the next connection that the origin accepts.
    pub(crate) async fn get_from_new(&mut self, origin: &Origin, target: &str, answer: &str) -> Message {
        self.send(super::get(target)).await;
        let mut server = origin.connection().await;
        assert_eq!(server.request().await.target(), target);
        server.send(answer).await;
        self.response("GET").await
    }

    /// Whether the node is done with the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.served.is_finished()
    }

    /// Resets the connection and waits until the node is done with it; panics if the node did.
    pub(crate) async fn die(self) {
        self.wire.reset();
        within("the node to be done with a connection", self.served).await.unwrap();
    }

    /// Closes the connection and waits until the node is done with it; panics if the node did.
    pub(crate) async fn close(self) {
        drop(self.wire);
        within("the node to be done with a connection", self.served).await.unwrap();
    }
}

impl Deref for Client {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}
