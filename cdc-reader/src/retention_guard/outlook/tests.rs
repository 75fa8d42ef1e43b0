//! Looks over hours, without a server.

use super::*;
use crate::mysql::retention::{Clock, SpaceLimit};

const HOUR: u64 = 3600;
const MB: u64 = 1 << 20;
/// When the first look is, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// A server with files of 100 MB, of which number `first` is the oldest; times in seconds since the first look.
struct Server {
    retention: Retention,
    first: u64,
    outlooks: Outlooks,
}

/// One look: when, how much was ever written and read (in MB), the time of the last transaction read, and the snapshot.
#[derive(Clone, Copy)]
struct At {
    seconds: u64,
    written: u64,
    read: u64,
    read_until: i64,
    rows_done: u64,
    rows_left: u64,
}

fn at(seconds: u64, written: u64, read: u64, read_until: i64) -> At {
    At { seconds, written, read, read_until, rows_done: 0, rows_left: 0 }
}

impl Server {
    fn keeping(seconds: u64) -> Self {
        let by_time = ByTime::After { seconds, clock: Clock::Seconds };
        Self::with(Retention { by_time, by_space: None })
    }

    fn with(retention: Retention) -> Self {
        Self { retention, first: 1, outlooks: Outlooks::default() }
    }

    fn look(&mut self, at: At) -> Outlook {
        let place =
            |mb: u64| BinlogPlace { file: format!("b.{:06}", mb / 100 + 1), offset: mb % 100 * MB };
        let end = place(at.written);
        let file = |number: u64| {
            let size = if number == end.file_number() { end.offset } else { 100 * MB };
            (format!("b.{number:06}"), size)
        };
        let look = Look {
            at: Duration::from_secs(at.seconds),
            server_ms: EPOCH_MS + at.seconds as i64 * 1000,
            files: (self.first..=end.file_number()).map(file).collect(),
            from: place(at.read),
            source_time_ms: EPOCH_MS + at.read_until * 1000,
            rows_done: at.rows_done,
            rows_left: at.rows_left,
            retention: self.retention.clone(),
        };
        self.outlooks.judge("udon", &look)
    }

    fn short(&mut self, at: At) -> String {
        match self.look(at).state {
            State::Short(sentence) => sentence,
            other => panic!("{other:?} at {} s", at.seconds),
        }
    }

    fn safe(&mut self, at: At) -> f64 {
        let outlook = self.look(at);
        assert_eq!(outlook.state, State::Safe, "at {} s", at.seconds);
        outlook.headroom_seconds
    }
}

#[test]
fn file_that_is_being_written_is_kept_for_the_whole_time() {
    let mut server = Server::keeping(HOUR);
    // The last transaction is days old: nothing has happened since.
    assert_eq!(server.safe(at(0, 50, 50, -500_000)), HOUR as f64);
    assert_eq!(server.safe(at(60, 60, 55, -500_000)), HOUR as f64);
}

#[test]
fn stalled_reader_is_warned_when_half_of_the_time_is_gone_and_once_more_when_it_is_over() {
    let mut server = Server::keeping(HOUR);
    assert_eq!(server.safe(at(0, 90, 90, 0)), HOUR as f64);
    // The file is closed, and the reader stays in it.
    assert_eq!(server.safe(at(60, 110, 90, 0)), (HOUR - 60) as f64);
    server.safe(at(1740, 200, 90, 0));
    let text = server.short(at(1860, 210, 90, 0));
    assert_eq!(
        text,
        "binlog file b.000001, which source udon reads on from, may be removed in 29 min (binlog_expire_logs_seconds = \
         3600), and the reader is not catching up: SET PERSIST binlog_expire_logs_seconds = 86400"
    );
    assert_eq!(server.look(at(4000, 300, 90, 0)).headroom_seconds, 0.0);
    server.first = 3;
    let State::Gone(text) = server.look(at(4060, 310, 90, 0)).state else { panic!("is gone") };
    assert!(
        text.starts_with("binlog file b.000001") && text.ends_with("oldest is b.000003"),
        "{text}"
    );
    // It went on after all.
    server.safe(at(4120, 320, 320, 4110));
}

#[test]
fn last_look_that_saw_the_file_being_written_counts_when_the_transactions_are_old() {
    let mut server = Server::keeping(HOUR);
    server.safe(at(0, 95, 90, -50_000));
    server.safe(at(60, 99, 90, -50_000));
    assert_eq!(server.safe(at(120, 110, 90, -50_000)), (HOUR - 60) as f64);
}

#[test]
fn reader_that_catches_up_in_time_is_left_alone_and_one_that_does_not_is_told_how_long_it_needs() {
    // 6000 MB behind, of which the oldest are 3 hours old; it reads 20 MB and the server writes 10 MB a second.
    let mut server = Server::keeping(4 * HOUR);
    server.safe(at(0, 6000, 0, -3 * 3600));
    assert_eq!(server.safe(at(60, 6600, 1200, -3 * 3600 + 900)), (HOUR + 840) as f64);
    // The same with 30 minutes less.
    let mut server = Server::keeping(3 * HOUR + 1000);
    server.safe(at(0, 60_000, 0, -3 * 3600));
    let text = server.short(at(60, 60_600, 1200, -3 * 3600 + 60));
    assert!(text.contains("may be removed in 17 min"), "{text}");
    assert!(text.contains("the reader needs about 99 min to catch up"), "{text}");
    assert!(text.ends_with("SET PERSIST binlog_expire_logs_seconds = 86400"), "{text}");
}

#[test]
fn snapshot_that_needs_longer_than_the_binlog_is_kept_is_told_before_anything_is_lost() {
    let mut server = Server::keeping(2 * HOUR);
    let with_rows = |seconds, rows_done| At {
        rows_done,
        rows_left: 10_000_000 - rows_done,
        ..at(seconds, seconds, seconds, seconds as i64)
    };
    // Without a second look there is no speed, and nothing is said.
    server.safe(with_rows(0, 0));
    let text = server.short(with_rows(60, 60_000));
    assert!(text.contains("kept for 2 hours (binlog_expire_logs_seconds = 7200)"), "{text}");
    assert!(text.contains("snapshot of source udon needs about 3 hours more"), "{text}");
    assert!(text.ends_with("SET PERSIST binlog_expire_logs_seconds = 86400"), "{text}");
    // Taken back with a quarter to spare, and not before.
    let ends_in = |server: &mut Server, seconds: u64, left_seconds: u64| {
        let done = 1000 * seconds;
        server.look(At { rows_left: 1000 * left_seconds, ..with_rows(seconds, done) }).state
    };
    assert!(matches!(ends_in(&mut server, 120, 2 * HOUR - 60), State::Short(_)));
    assert!(matches!(ends_in(&mut server, 180, HOUR + 2400), State::Short(_)));
    assert_eq!(ends_in(&mut server, 240, HOUR + 1800), State::Safe);
    assert_eq!(ends_in(&mut server, 300, 2 * HOUR - 60), State::Safe);
}

#[test]
fn size_removes_files_too_and_the_nearer_of_the_two_counts() {
    let mut server = Server::with(Retention {
        by_time: ByTime::After { seconds: 240 * HOUR, clock: Clock::MariaDb },
        by_space: Some(SpaceLimit { bytes: 10_000 * MB, dynamic: true }),
    });
    server.safe(at(0, 1000, 0, 0));
    // One MB a second, from file 1 on: 10000 MB less what there is.
    assert_eq!(server.safe(at(100, 1100, 0, 0)).round(), 8900.0);
    let text = server.short(at(6000, 7000, 0, 0));
    assert!(
        text.contains("may be removed in 50 min (max_binlog_total_size = 10485760000)"),
        "{text}"
    );
    assert!(text.contains(": SET GLOBAL max_binlog_total_size = "), "{text}");
}

#[test]
fn server_without_a_rule_keeps_everything_and_one_without_a_number_nothing() {
    let mut server = Server::with(Retention { by_time: ByTime::Never, by_space: None });
    server.safe(at(0, 500, 0, -900_000));
    assert_eq!(server.safe(at(60, 600, 0, -900_000)), f64::INFINITY);

    let by_time = ByTime::After { seconds: 0, clock: Clock::Rds };
    let mut server = Server::with(Retention { by_time, by_space: None });
    let text = server.short(at(0, 50, 50, 0));
    assert!(text.contains("'binlog retention hours' is not set"), "{text}");
    assert!(
        text.ends_with("CALL mysql.rds_set_configuration('binlog retention hours', 24)"),
        "{text}"
    );
}

#[test]
fn where_the_user_may_not_ask_the_oldest_file_is_the_sign() {
    let by_time = ByTime::NotTold("GRANT EXECUTE".into());
    let mut server = Server::with(Retention { by_time, by_space: None });
    assert!(server.safe(at(0, 500, 300, 0)).is_nan());
    server.first = 4;
    let text = server.short(at(60, 600, 320, 0));
    assert!(text.contains("is the oldest and will be removed next"), "{text}");
}

#[test]
fn place_that_is_not_known_on_this_server_is_not_judged() {
    let mut server = Server::keeping(HOUR);
    let look = Look {
        at: Duration::ZERO,
        server_ms: EPOCH_MS,
        files: vec![("b.000007".into(), 500)],
        from: BinlogPlace::default(),
        source_time_ms: EPOCH_MS,
        rows_done: 0,
        rows_left: 0,
        retention: server.retention.clone(),
    };
    assert_eq!(server.outlooks.judge("udon", &look).state, State::Safe);
    let later = Look { from: BinlogPlace { file: "b.000009".into(), offset: 4 }, ..look.clone() };
    assert_eq!(server.outlooks.judge("udon", &later).state, State::Safe);
    let none = Look { files: Vec::new(), ..look };
    assert!(server.outlooks.judge("udon", &none).headroom_seconds.is_nan());
}
