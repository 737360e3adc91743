//! Every answer that a service may give, for every operation: what the store makes of it.
//!
//! A table of answers against the operations, as tests of its own for each provider. What passes by itself must not be seen by the caller; what does
//! not must be named, at once, and never be taken for an absence, an empty list or a success.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use highwater_archive::store::{self, Created, Persistence, Store, StoreError, StoreSpec};
use highwater_tests::cloud::CloudServer;
use highwater_tests::s3::{Fault, Operation, Response, When};

/// Pauses that a test can wait for.
const QUICK: Persistence = Persistence {
    attempt: Duration::from_secs(60),
    all: Duration::from_secs(60),
    pause: Duration::from_millis(2),
    longest_pause: Duration::from_millis(20),
    slowest: 1 << 20,
};

/// A call of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create,
    Get,
    Range,
    Stream,
    Head,
    List,
    Level,
    Delete,
}

const CALLS: [Call; 8] =
    [Call::Create, Call::Get, Call::Range, Call::Stream, Call::Head, Call::List, Call::Level, Call::Delete];

/// What the object holds that is read.
const CONTENT: &str = "0123456789";

impl Call {
    /// The request that it makes of the service.
    fn operation(self) -> Operation {
        match self {
            Self::Create => Operation::Put,
            Self::Get | Self::Range | Self::Stream => Operation::Get,
            Self::Head => Operation::Head,
            Self::List | Self::Level => Operation::List,
            Self::Delete => Operation::Delete,
        }
    }

    /// Makes the call on fresh ground, and says what came of it.
    async fn make(self, server: &CloudServer, store: &dyn Store) -> Result<String, StoreError> {
        for key in server.objects().keys() {
            server.objects().remove(&key);
        }
        server.objects().put("p/d/a", Bytes::from(CONTENT));
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("text");
        Ok(match self {
            Self::Create => format!("{:?}", store.create("d/new", vec![Bytes::from_static(b"x")]).await?),
            Self::Get => text(store.get("d/a").await?),
            Self::Range => text(store.get_range("d/a", 2..7).await?),
            Self::Stream => {
                let chunks: Vec<Bytes> = store.stream("d/a").await?.try_collect().await?;
                text(chunks.concat().into())
            }
            Self::Head => format!("{:?}", store.head("d/a").await?.map(|info| info.size)),
            Self::List => format!("{:?}", paths(store.list("d/").await?)),
            Self::Level => format!("{:?}", store.list_dir("").await?.directories),
            Self::Delete => {
                store.delete("d/a").await?;
                format!("{:?}", server.objects().keys())
            }
        })
    }

    /// What comes of it when nothing goes wrong.
    fn success(self) -> &'static str {
        match self {
            Self::Create => "New",
            Self::Get | Self::Stream => CONTENT,
            Self::Range => "23456",
            Self::Head => "Some(10)",
            Self::List => r#"["d/a"]"#,
            Self::Level => r#"["d"]"#,
            Self::Delete => "[]",
        }
    }
}

fn paths(entries: Vec<highwater_archive::store::ListEntry>) -> Vec<String> {
    entries.into_iter().map(|entry| entry.path).collect()
}

/// The kind of an error, without its words.
fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::NotFound { .. } => "not found",
        StoreError::NoRoot { .. } => "no root",
        StoreError::PermissionDenied { .. } => "denied",
        StoreError::Unavailable { .. } => "unavailable",
        StoreError::Refused { .. } => "refused",
        _ => "another",
    }
}

const HTML: &str = "<html><body>Please log in to the network.</body></html>";
const ERROR_200: &str =
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>reduce</Message></Error>";
const HALF_A_LIST: &str = "<?xml version=\"1.0\"?><ListBucketResult><Contents></Contents>";

for_each_provider!(
    what_passes_is_not_seen_by_the_caller,
    what_does_not_pass_is_named_at_once,
    what_is_no_whole_list_proves_no_absence,
    a_lost_reply_is_known_by_what_was_written,
    a_conflict_is_believed_of_an_object_alone,
    a_broken_transfer_goes_on,
    waiting_is_as_long_as_was_asked_and_not_for_ever,
    what_is_not_reached_is_an_outage,
    a_wrong_clock_is_told,
);

/// What passes is tried again, each time as a request of its own, and the caller sees nothing of it.
async fn what_passes_is_not_seen_by_the_caller(server: CloudServer) {
    let answers = [
        Response::Status(500, "InternalError"),
        Response::Status(503, server.busy()),
        Response::Status(503, ""),
        Response::Status(429, "TooManyRequests"),
        Response::Status(408, "RequestTimeout"),
        Response::Status(502, ""),
        Response::Cut,
        Response::Half,
        Response::Body(200, ERROR_200),
    ];
    for answer in answers {
        for call in CALLS {
            // A body in place of an object is for the seal to find out; a service's bulk delete has an answer of its own.
            let is_read = matches!(call.operation(), Operation::Get | Operation::Head | Operation::Delete);
            let no_body = matches!(call.operation(), Operation::Put | Operation::Head | Operation::Delete);
            match answer {
                Response::Body(..) if is_read => continue,
                Response::Half if no_body => continue,
                _ => {}
            }
            server.faults().clear();
            server.faults().forget_requests();
            server.faults().add(Fault { fail: 2, ..Fault::next(call.operation(), answer.clone()) });
            // What a store has seen before slows it down.
            let store = server.store_with("p", QUICK);
            let at = format!("{} {call:?} {answer:?}", store.describe());
            let came = call.make(&server, &*store).await;
            assert_eq!(came.unwrap_or_else(|error| panic!("{at}: {error}")), call.success(), "{at}");
            assert_eq!(server.faults().counts()[&call.operation()], 3, "{at}");
        }
    }
}

/// What does not pass is named, at once: by one request, or two where the first cannot say what it is about.
async fn what_does_not_pass_is_named_at_once(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    let (object, root) = server.missing();
    let table = [
        (Response::Status(403, "AccessDenied"), "denied", "list this prefix"),
        (Response::Status(403, "ExpiredToken"), "denied", "token"),
        (Response::Status(403, "RequestTimeTooSkewed"), "denied", "NTP"),
        (Response::Status(401, "Unauthorized"), "denied", ""),
        (Response::Status(404, root), "no root", "URL"),
        (Response::Status(404, ""), "refused", ""),
        (Response::Body(404, HTML), "refused", ""),
        (Response::Status(400, "InvalidRequest"), "refused", ""),
        (Response::Status(404, object), "not found", ""),
    ];
    for (answer, expected, hint) in table {
        for call in CALLS {
            server.faults().clear();
            // A HEAD that is not answered in words is asked again as a read.
            for operation in
                [Operation::Put, Operation::Get, Operation::Head, Operation::Delete, Operation::List]
            {
                server.faults().add(Fault::always(operation, answer.clone()));
            }
            server.faults().forget_requests();
            let came = call.make(&server, &*store).await;
            let at = format!("{} {call:?} {answer:?}: {came:?}", store.describe());
            let asked = server.faults().requests().len();
            // A credential that is over is asked for anew, twice.
            let attempts = if answer == Response::Status(403, "ExpiredToken") { 3 } else { 1 };
            assert!(asked <= 2 + attempts, "{at}: {asked} requests");
            match (expected, call) {
                ("not found", Call::Head) => assert_eq!(came.ok().as_deref(), Some("None"), "{at}"),
                ("not found", Call::Delete) => assert!(came.is_ok(), "{at}"),
                // Without an object there is but the bucket that can be missing.
                ("not found", Call::Create | Call::List | Call::Level) => {
                    assert_eq!(came.as_ref().map_err(kind), Err("no root"), "{at}");
                }
                // A bulk delete names no code for its parts.
                (_, Call::Delete) if matches!(server, CloudServer::Azure(_)) => {}
                _ => {
                    let error = came.expect_err(&at);
                    assert_eq!(kind(&error), expected, "{at}");
                    assert!(error.is_permanent() && error.hint().unwrap_or_default().contains(hint), "{at}");
                }
            }
        }
    }
}

/// A list that is none would prove an absence. Whatever else comes under status 200 is an outage.
async fn what_is_no_whole_list_proves_no_absence(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    for body in [HTML, ERROR_200, HALF_A_LIST, "", "<ListBucketResult>", "not XML at all"] {
        for call in [Call::List, Call::Level] {
            server.faults().clear();
            let persistent = Persistence { all: Duration::from_millis(50), ..QUICK };
            let store = server.store_with("p", persistent);
            server.faults().add(Fault::always(Operation::List, Response::Body(200, body)));
            let came = call.make(&server, &*store).await;
            assert_eq!(
                came.as_ref().map_err(kind),
                Err("unavailable"),
                "{} {body:?}: {came:?}",
                store.describe()
            );
        }
    }
    server.faults().clear();
    assert_eq!(Call::List.make(&server, &*store).await.expect("a list"), Call::List.success());
}

/// A create whose reply was lost is known by what it wrote, however it was lost; what somebody else wrote is not taken for ours.
async fn a_lost_reply_is_known_by_what_was_written(server: CloudServer) {
    let body = || vec![Bytes::from(vec![7; 300 << 10]), Bytes::from_static(b"end")];
    let losses = [
        Response::Cut,
        Response::Hang,
        Response::Status(500, "InternalError"),
        Response::Status(503, server.busy()),
        Response::Body(200, ERROR_200),
    ];
    for (number, loss) in losses.into_iter().enumerate() {
        let attempt = if loss == Response::Hang { Duration::from_millis(500) } else { QUICK.attempt };
        let store = server.store_with("p", Persistence { attempt, ..QUICK });
        let at = format!("{} {loss:?}", store.describe());
        let lost = Fault { when: When::AfterEffect, ..Fault::next(Operation::Put, loss.clone()) };
        server.faults().add(lost);
        let path = format!("lost/{number}");
        assert_eq!(store.create(&path, body()).await.expect(&at), Created::New, "{at}");
        assert_eq!(store.get(&path).await.expect(&at), body().concat(), "{at}");
        // Another's, of which ours is the beginning, or which is the beginning of ours.
        for others in [body().concat(), body()[0].to_vec(), [body().concat(), vec![1]].concat()] {
            let path = format!("others/{number}/{}", others.len());
            server.objects().put(&format!("p/{path}"), others.clone().into());
            server.faults().add(Fault::next(Operation::Put, loss.clone()));
            let same = others == body().concat();
            let expected = if same { Created::New } else { Created::Exists };
            assert_eq!(store.create(&path, body()).await.expect(&at), expected, "{at} {path}");
        }
        // A delete whose reply was lost finds nothing, which is what was wanted.
        server.faults().add(Fault { when: When::AfterEffect, ..Fault::next(Operation::Delete, loss) });
        store.delete(&path).await.expect(&at);
        assert_eq!(store.head(&path).await.expect(&at), None, "{at}");
    }
    // As long as no reply comes, nothing is claimed.
    let mute = server.store_with("p", QUICK);
    let lost = Fault { when: When::AfterEffect, ..Fault::always(Operation::Put, Response::Cut) };
    server.faults().add(lost);
    let error = mute.create("mute", body()).await.expect_err("no reply");
    assert_eq!(kind(&error), "unavailable");
    assert!(error.to_string().contains(" attempts in "), "{error}");
    server.faults().clear();
    // The first create of a name that is taken already is a plain conflict, by one request.
    let store = server.store_with("p", QUICK);
    server.faults().forget_requests();
    assert_eq!(store.create("lost/4", body()).await.expect("conflict"), Created::New);
    let again = store.create("lost/4", body()).await.expect("conflict");
    assert_eq!(
        (again, server.faults().requests().len()),
        (Created::Exists, 2),
        "{:?}",
        server.faults().requests()
    );
}

/// I4: what a service calls a conflict is one where the object is there; without it, another writer may have failed, and the create is
/// begun anew. A container that is going is no conflict.
async fn a_conflict_is_believed_of_an_object_alone(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    let create = async |path: &str| store.create(path, vec![Bytes::from_static(b"x")]).await;
    for passing in ["ConditionalRequestConflict", "OperationAborted"] {
        server.faults().add(Fault::next(Operation::Put, Response::Status(409, passing)));
        assert_eq!(create(passing).await.expect(passing), Created::New);
        server.faults().add(Fault::next(Operation::Put, Response::Status(409, passing)));
        assert_eq!(create(passing).await.expect(passing), Created::Exists);
    }
    server.faults().add(Fault::next(Operation::Put, server.conflict()));
    assert_eq!(create("OperationAborted").await.expect("conflict"), Created::Exists);
    if matches!(server, CloudServer::Azure(_)) {
        server.faults().add(Fault::next(Operation::Put, Response::Status(409, "ContainerBeingDeleted")));
        assert_eq!(create("a").await.as_ref().map_err(kind), Err("no root"));
    }
}

/// A transfer that breaks goes on where it broke: what is large is not begun anew, and never mixed with another object.
async fn a_broken_transfer_goes_on(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    server.objects().put("p/large", content.clone().into());
    // Each time half of what is left arrives.
    server.faults().add(Fault { fail: 12, ..Fault::next(Operation::Get, Response::Half) });
    assert_eq!(store.get("large").await.expect("get"), content);
    assert_eq!(server.faults().requests().len(), 13);
    server.faults().add(Fault { fail: 3, ..Fault::next(Operation::Get, Response::Half) });
    let chunks: Vec<Bytes> = store.stream("large").await.expect("stream").try_collect().await.expect("all");
    assert_eq!(chunks.concat(), content);

    server.faults().add(Fault::next(Operation::Get, Response::Half));
    let mut stream = store.stream("large").await.expect("stream");
    drop(stream.try_next().await.expect("a chunk"));
    server.objects().put("p/large", vec![0; content.len()].into());
    let rest: Result<Vec<Bytes>, StoreError> = stream.try_collect().await;
    assert_eq!(rest.as_ref().map_err(kind), Err("unavailable"), "another object");
}

/// When the service says when to come back, nobody comes before; and an outage has an end.
async fn waiting_is_as_long_as_was_asked_and_not_for_ever(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    for call in [Call::Create, Call::Get, Call::List] {
        let status = if call == Call::Get { 429 } else { 503 };
        server.faults().add(Fault::next(call.operation(), Response::ComeBack(status, server.busy(), 1)));
        let begun = Instant::now();
        assert_eq!(call.make(&server, &*store).await.expect("at last"), call.success());
        assert!(begun.elapsed() >= Duration::from_millis(990), "{call:?}: {:?}", begun.elapsed());
    }
    // What lies beyond our patience is said at once.
    let hasty = server.store_with("p", Persistence { all: Duration::from_secs(5), ..QUICK });
    server.faults().add(Fault::always(Operation::Get, Response::ComeBack(503, server.busy(), 3000)));
    server.faults().forget_requests();
    let error = hasty.get("a").await.expect_err("not now");
    assert_eq!((kind(&error), server.faults().requests().len()), ("unavailable", 1), "{error}");
    server.faults().clear();

    // A service that hangs costs an attempt's time each, and no more than was allowed.
    let limits =
        Persistence { attempt: Duration::from_millis(200), all: Duration::from_millis(500), ..QUICK };
    let hung = server.store_with("p", limits);
    for call in CALLS {
        server.faults().clear();
        server.faults().add(Fault::always(call.operation(), Response::Hang));
        let came = call.make(&server, &*hung).await;
        assert_eq!(came.as_ref().map_err(kind), Err("unavailable"), "{call:?}: {came:?}");
    }
}

/// Where nobody listens nothing is absent.
async fn what_is_not_reached_is_an_outage(server: CloudServer) {
    let spec = StoreSpec { endpoint: Some("http://127.0.0.1:1".into()), ..server.spec("p") };
    let store = store::open_with(&spec, QUICK).expect("open");
    for answer in [store.get("a").await.map(drop), store.create("a", vec![]).await.map(drop)] {
        assert_eq!(answer.as_ref().map_err(kind), Err("unavailable"), "{answer:?}");
    }
}

/// Each attempt is signed anew: with the date that it then is, as a service takes requests of the last minutes only.
async fn each_attempt_is_signed_anew(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    for call in [Call::Create, Call::Get, Call::List] {
        server.faults().forget_requests();
        server.faults().add(Fault::next(call.operation(), Response::ComeBack(503, server.busy(), 2)));
        assert_eq!(call.make(&server, &*store).await.expect("at last"), call.success());
        let signed: Vec<_> = server.faults().requests().into_iter().map(|request| request.signed).collect();
        let [(first, one), (second, other)] = signed.as_slice() else { panic!("{signed:?}") };
        assert!(first != second && one != other, "{call:?} was sent again as it was signed: {first}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_attempt_at_amazon_is_signed_anew() {
    each_attempt_is_signed_anew(CloudServer::amazon()).await;
}

// Google's requests carry a token in place of a signature.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_attempt_at_azure_is_signed_anew() {
    each_attempt_is_signed_anew(CloudServer::azure()).await;
}

/// A refusal says how far the clocks differ, whoever is wrong, and which way; the store tells it also when all is well.
async fn a_wrong_clock_is_told(server: CloudServer) {
    let store = server.store_with("p", QUICK);
    assert_eq!(store.clock_skew(), None);
    for (ahead, words) in [(1200, "behind the store's"), (-1200, "ahead of the store's")] {
        server.faults().set_clock_ahead(ahead);
        assert_eq!(Call::Get.make(&server, &*store).await.expect("get"), CONTENT);
        let skew = store.clock_skew().expect("a clock").as_secs();
        // What the request took is taken off: the clocks are never told to be further apart than they are.
        assert!(skew.signum() == ahead.signum(), "{skew} s instead of {ahead}");
        assert!((600..=1200).contains(&skew.abs()), "{skew} s instead of {ahead}");
        for code in ["RequestTimeTooSkewed", "AuthenticationFailed"] {
            server.faults().add(Fault::next(Operation::Put, Response::Status(403, code)));
            let error = store.create("x", vec![]).await.expect_err("too skewed");
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint().expect("a hint").contains("clock"), "{error}");
        }
    }
    server.faults().set_clock_ahead(0);
    drop(store.get("absent").await);
    assert_eq!(store.clock_skew().map(|skew| skew.as_secs()), Some(0));
}
