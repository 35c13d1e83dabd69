//! What a hit costs in instructions and allocations, from the request's bytes to the head of its answer, and what a
//! small stored response costs in memory beside what the budget counts for it. Numbers, not times: the machine may be busy.
//!
//! valgrind counts: the program runs itself under it with two numbers of hits, and the difference is theirs.

use std::{
    env, fs,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use sidestep::{
    accept::{
        netns::{Netns, SocketMaker},
        sniff,
    },
    admin::{Counters, Switch},
    config::Limits,
    forward::RequestBody,
    http1::{
        Fields,
        head::{Parsed, RequestHead},
    },
    identify::Workload,
    policy::{self, Now, RequestView, ResponseView, Rules, Stored},
    redirect::bypass::Bypass,
    request::{Connection, Parts, Path},
    respond::{Persistence, Response, reuse_fields},
    route::Routes,
    store::{Place, Recording, Store, StoreLimits},
};

const REQUEST: &[u8] = b"GET /catalog/items/4711?lang=en HTTP/1.1\r\nHost: catalog.shop.svc:8080\r\n\
    User-Agent: okhttp/4.12.0\r\nAccept: application/json\r\nAccept-Encoding: gzip\r\nConnection: keep-alive\r\n\
    X-Request-Id: 5f2b1c9e-8f0e-4a4c-9d4f-0a5f7f6b3c2d\r\n\r\n";

const NOW: Now = Now { boot: Duration::from_secs(1000), wall: 784_111_777 };

const FEW: u64 = 1000;
const MANY: u64 = 11_000;

/// Responses of 100 bytes that are stored to see what they take.
const SMALL: usize = 46_000;

fn main() -> Result<()> {
    match env::args().nth(1).as_deref().map(str::parse) {
        Some(Ok(hits)) => hit(hits),
        _ => {
            memory()?;
            let (few, many) = (instructions(FEW)?, instructions(MANY)?);
            println!("a hit, without its sockets: {} instructions", (many - few) / (MANY - FEW));
            let (few, many) = (allocations(FEW)?, allocations(MANY)?);
            println!(
                "a hit, without its sockets: {:.2} allocations",
                (many - few) as f64 / (MANY - FEW) as f64
            );
            Ok(())
        }
    }
}

fn view(head: &RequestHead) -> RequestView<'_> {
    RequestView { method: &head.method, target: &head.target, fields: &head.fields }
}

fn parse(buffer: &mut BytesMut) -> Result<RequestHead> {
    match RequestHead::take(buffer, &mut 0, 64 << 10) {
        Parsed::Complete(head) => Ok(head),
        _ => bail!("the request is not understood"),
    }
}

fn key(head: &RequestHead) -> Vec<u8> {
    let mut key = Vec::new();
    let host = head.fields.first("host").unwrap_or_default();
    policy::key(b"shop\0default\0netns", b"10.96.0.17:8080", host, &head.target, &mut key);
    key
}

fn stored(head: &RequestHead) -> Result<Stored> {
    let fields = Fields::from_pairs([
        ("cache-control", "max-age=60"),
        ("content-type", "application/json"),
        ("vary", "accept-encoding"),
        ("etag", "\"4711\""),
    ]);
    let response = ResponseView { status: 200, fields: &fields, delimited_by_close: false };
    policy::store(&view(head), &response, &Rules::default(), NOW, NOW).map_err(|why| anyhow::anyhow!("{why}"))
}

fn put(store: &Store, key: Vec<u8>, stored: Stored, content: &[u8]) -> Result<()> {
    let place = Place { resource: key.clone(), key, begun: store.begin(), owner: 0 };
    let recorded =
        Recording::begin(store, place, stored, Some(content.len() as u64)).and_then(|mut recording| {
            recording.append(content)?;
            recording.finish(|_, _| Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n"))
        });
    recorded.map(|_| ()).map_err(|why| anyhow::anyhow!("{why}"))
}

/// Serves so many hits by the path itself, all but what the sockets do.
fn hit(hits: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let destination = origin()?;
        let path = path()?;
        let connection = Arc::new(connection(destination, 1));
        store_one(&path, destination).await?;
        let mut buffer = BytesMut::new();
        for _ in 0..hits {
            buffer.extend_from_slice(REQUEST);
            let head = parse(&mut buffer)?;
            let Response::Stored(answer) = path.serve(&head, RequestBody::of_nobody(), &connection).await?
            else {
                bail!("not a hit")
            };
            let fields = reuse_fields(&answer.entry.stored, answer.age, answer.reused, Persistence::Stays);
            black_box((answer.entry.head.clone(), fields, answer.entry.body.first().cloned()));
        }
        Ok(())
    })
}

/// An origin that gives one answer.
fn origin() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 4096];
        let _ = stream.read(&mut request)?;
        let content = [b'x'; 1024];
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nVary: Accept-Encoding\r\nETag: \"4711\"\r\n\
              Content-Type: application/json\r\nContent-Length: 1024\r\n\r\n",
        )?;
        Ok(stream.write_all(&content)?)
    });
    Ok(address)
}

fn path() -> Result<Arc<Path>> {
    let directory = env::temp_dir();
    let switch = Arc::new(Switch::new(&directory, &directory.join("sidestep-hot-path.sock")));
    switch.took_effect(true);
    let limits = Limits::default();
    let parts = Parts {
        routes: Routes::new(Rules { resident_max: Duration::from_secs(3600), ..Rules::default() }, switch),
        store: Store::new(StoreLimits { bytes_max: 16 << 20, ..StoreLimits::default() }),
        sockets: SocketMaker::start()?,
        bypass: Bypass::new(None, &limits),
        hot: None,
        counters: Arc::new(Counters::default()),
        is_strict: false,
    };
    Ok(Arc::new(Path::new(parts, limits)))
}

fn connection(destination: SocketAddr, id: u64) -> Connection {
    let identity = ["shop", "default"].map(str::to_owned);
    let workload = Workload::new("hot-path".to_owned(), identity, 1, (Netns::Own, 1), 1);
    Connection::new(Arc::new(workload), destination, None, id)
}

/// Brings the answer into the store by a request of a real client.
async fn store_one(path: &Arc<Path>, destination: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept().await?;
    let served = tokio::spawn(sniff::serve(accepted, path.clone(), connection(destination, 2)));
    (&client).write_all(REQUEST)?;
    while path.counters.figures().stored == 0 {
        tokio::task::yield_now().await;
    }
    drop(client);
    Ok(served.await?)
}

/// Prints what small responses take of the machine's memory beside what the budget counts.
fn memory() -> Result<()> {
    let store = Store::new(StoreLimits { bytes_max: 256 << 20, ..StoreLimits::default() });
    let mut buffer = BytesMut::from(REQUEST);
    let head = parse(&mut buffer)?;
    let (counted, resident) = (store.bytes(), resident_bytes()?);
    for n in 0..SMALL {
        let mut key = key(&head);
        key.extend_from_slice(&n.to_be_bytes());
        // Parsed anew as each real one would be, so that nothing is shared.
        put(&store, key, stored(&head)?, &[0; 100])?;
    }
    let counted = (store.bytes() - counted) / SMALL as u64;
    let resident = resident_bytes()?.saturating_sub(resident) / SMALL as u64;
    println!("a stored response of 100 bytes: {counted} bytes of the budget, {resident} bytes of memory");
    Ok(())
}

fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("VmRSS")?.parse::<u64>()? * 1024)
}

fn under_valgrind(tool: &[&str], hits: u64) -> Result<String> {
    let output = Command::new("valgrind").args(tool).arg(env::current_exe()?).arg(hits.to_string()).output();
    let output = output.context("valgrind did not start: it counts instructions and allocations")?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn instructions(hits: u64) -> Result<u64> {
    let said = under_valgrind(&["--tool=callgrind", "--callgrind-out-file=/dev/null"], hits)?;
    figure(&said, "Collected :")
}

fn allocations(hits: u64) -> Result<u64> {
    figure(&under_valgrind(&["--tool=memcheck"], hits)?, "total heap usage:")
}

/// The number after a word of valgrind's.
fn figure(said: &str, word: &str) -> Result<u64> {
    let after = said.split_once(word).with_context(|| said.to_owned())?.1;
    let digits = after
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',')
        .filter(char::is_ascii_digit);
    Ok(digits.collect::<String>().parse()?)
}
