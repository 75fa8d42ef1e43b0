//! A change made in MySQL is in the lake, in a form that other programs read: the whole way, with the real program.

mod harness;
mod scenario;

use std::time::Duration;

use harness::{MySql, Rows, eventually_some};
use scenario::{CATCH_UP, Scenario};

const ENGINES: [&str; 2] = ["deltalake", "duckdb"];

/// The demo's table of orders, without what its history does not need.
const ORDERS: &str = "id bigint unsigned not null auto_increment primary key,
    user_id int not null, status enum('created','paid','shipped','done'), price decimal(12,2) not null,
    qty smallint, memo varchar(200), ordered_at datetime(6), updated_at timestamp null, meta json,
    is_gift tinyint(1), ratio double";

/// The same row as MySQL's client and `read_tables.py` write it.
const ORDERS_SELECT: &str =
    "id, user_id, status, price, qty, memo, cast(ordered_at as datetime(6)),
    cast(updated_at as datetime(6)), replace(cast(meta as char), ' ', ''), is_gift, ratio";
const ORDERS_COLUMNS: &str =
    "id,user_id,status,price,qty,memo,ordered_at,updated_at,meta,is_gift,ratio";

#[test]
fn state_table_follows_every_kind_of_change() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("follow");
    mysql.exec(&format!("create table {database}.orders ({ORDERS})"));
    mysql.exec(&insert(&database, 1..=40));
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();

    mysql.exec(&insert(&database, 41..=60));
    mysql.exec(&format!(
        "use {database};
         update orders set status = 'done', memo = null where id between 10 and 20;
         delete from orders where id in (3, 41);
         update orders set id = 1000 where id = 5;
         update orders set id = 18446744073709551615 where id = 6;
         begin; delete from orders where id = 7; {}; commit;
         begin; update orders set price = 0; rollback;
         begin; update orders set id = 2000 where id = 8; update orders set id = 8 where id = 9; commit",
        insert(&database, 7..=7)
    ));
    scenario.verify();
    assert!(up.is_running());
    others_read_the_same(mysql, &scenario, &database);
}

#[test]
fn what_is_written_for_debeziums_consumers_is_no_table() {
    let Some(mysql) = MySql::shared() else { return };
    // A database of the name that the topic of transaction metadata ends in.
    mysql.exec("create database transaction");
    mysql.exec("create table transaction.orders (id int primary key, v text)");
    let scenario = Scenario::new(mysql, "told", &["transaction.*"], "");
    let command = [
        ("CONTEXT_HEADERS", "true"),
        ("TRANSACTION_METADATA", "true"),
        ("HEARTBEAT_INTERVAL_MS", "100"),
        ("SCHEMA_CHANGES", "true"),
    ]
    .into_iter()
    .fold(scenario.command(&["up"]), |command, (key, value)| {
        command.env(&format!("BINLAKE_SOURCE__TOLD__{key}"), value)
    });
    let mut up = command.start();
    scenario.verify();
    mysql.exec(
        "use transaction;
         begin; insert into orders values (1, 'a'), (2, 'b'); update orders set id = 3 where id = 1; commit;
         alter table orders add column w int;
         insert into orders values (4, 'c', 6)",
    );
    scenario.verify();
    scenario.wait_for_query(
        "select id, v, w from told.transaction.orders order by id",
        &["2,b,", "3,a,", "4,c,6"],
    );
    assert!(up.is_running());
    let status = scenario.command(&["status", "--json"]).run(CATCH_UP).success();
    for name in ["told.transaction.orders", "heartbeat"] {
        assert_eq!(status.contains(name), name.ends_with("orders"), "{status}");
    }
}

#[test]
fn truncate_empties_a_state_table() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("truncated");
    mysql.exec(&format!("create table {database}.orders ({ORDERS})"));
    mysql.exec(&insert(&database, 1..=30));
    let scenario = scenario(mysql, &database, "");
    let _up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!("truncate {database}.orders"));
    mysql.exec(&insert(&database, 5..=6));
    scenario.verify();
    others_read_the_same(mysql, &scenario, &database);
}

#[test]
fn added_column_is_null_before_and_filled_after() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("added");
    mysql.exec(&format!("create table {database}.orders ({ORDERS})"));
    mysql.exec(&insert(&database, 1..=3));
    let scenario = scenario(mysql, &database, "");
    let _up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database}; alter table orders add column coupon varchar(20) null after user_id;
         update orders set coupon = '첫주문' where id = 2"
    ));
    scenario.verify();
    let coupons =
        scenario.query(&format!("select id, coupon from {database}.{database}.orders order by id"));
    assert_eq!(coupons, ["1,", "2,첫주문", "3,"]);
}

#[test]
fn purge_at_the_source_keeps_a_history_table() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("purged");
    mysql.exec(&format!(
        "use {database}; create table order_events (id bigint primary key, kind varchar(9), at date);
         insert into order_events values (1, 'old', '2026-01-01'), (2, 'old', '2026-01-01')"
    ));
    let scenario =
        scenario(mysql, &database, "[[table]]\nmatch = \"*_events\"\nmode = \"history\"\n");
    let _up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database}; insert into order_events values (3, 'new', '2026-02-01');
         delete from order_events where at < '2026-02-01';
         update order_events set kind = 'newer' where id = 3"
    ));
    scenario.verify();
    // The update is a second version of its row; the purge is nothing at all.
    let kinds =
        format!("select id, kind from {database}.{database}.order_events order by id, kind");
    assert_eq!(scenario.query(&kinds), ["1,old", "2,old", "3,new", "3,newer"]);
    mysql.exec(&format!("truncate {database}.order_events"));
    mysql.exec(&format!("insert into {database}.order_events values (4, 'last', null)"));
    scenario.wait_for_query(&kinds, &["1,old", "2,old", "3,new", "3,newer", "4,last"]);
}

#[test]
fn table_without_a_key_goes_on_as_history_and_says_so() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("keyless");
    mysql.exec(&format!(
        "use {database}; create table clicks (page varchar(20), at date);
         insert into clicks values ('/', null), ('/', null), ('/cart', '2026-01-01')"
    ));
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    up.wait_logged(CATCH_UP, "clicks");
    let pages = format!(
        "select page, count(*) as n from {database}.{database}.clicks group by page order by page"
    );
    scenario.wait_for_query(&pages, &["/,2", "/cart,1"]);
    mysql.exec(&format!("insert into {database}.clicks values ('/', '2026-01-02')"));
    scenario.wait_for_query(&pages, &["/,3", "/cart,1"]);
    let said = up.stderr() + &up.stdout();
    let sentence = said.lines().find(|line| line.contains("clicks") && line.contains("history"));
    assert!(sentence.is_some(), "nothing says that the table is kept as history:\n{said}");
}

#[test]
fn restart_goes_on_where_it_was() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("restart");
    mysql.exec(&format!("create table {database}.orders ({ORDERS})"));
    mysql.exec(&insert(&database, 1..=20));
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    up.terminate();
    assert!(up.wait_exit(Duration::from_secs(60)).success(), "{}", up.stderr());

    mysql.exec(&insert(&database, 21..=40));
    mysql.exec(&format!("delete from {database}.orders where id % 3 = 0"));
    let mut up = scenario.start("up");
    scenario.verify();
    up.kill9();

    mysql.exec(&format!("update {database}.orders set qty = qty + 1"));
    let _up = scenario.start("up");
    scenario.verify();
    others_read_the_same(mysql, &scenario, &database);
}

#[test]
fn lost_replication_connection_is_made_again() {
    let Some(mysql) = MySql::start(&[]) else { return };
    let database = mysql.new_database("lost");
    mysql.exec(&format!("create table {database}.orders ({ORDERS})"));
    mysql.exec(&insert(&database, 1..=5));
    let scenario = scenario(&mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    for round in 1..=5u32 {
        let dump =
            "select id from performance_schema.processlist where command like 'Binlog Dump%'";
        let id = eventually_some(CATCH_UP, "the reader follows the binlog", || {
            mysql.rows(dump).into_iter().flatten().next().flatten()
        });
        mysql.exec(&format!("kill {id}"));
        mysql.exec(&insert(&database, round * 10..=round * 10 + 3));
        scenario.verify();
        assert!(up.is_running(), "round {round}");
    }
}

#[test]
fn server_without_gtids_is_followed_by_file_and_offset() {
    let options = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];
    let Some(mysql) = MySql::start(&options) else { return };
    follow_and_verify(&mysql, "no_gtids");
}

#[test]
fn mariadb_is_followed_and_verified() {
    let Some(mariadb) = MySql::shared_mariadb() else { return };
    follow_and_verify(mariadb, "mariadb");
}

/// Snapshot, stream, restart after a rotation, and each time the lake is equal to the source.
fn follow_and_verify(server: &MySql, hint: &str) {
    let database = server.new_database(hint);
    server.exec(&format!("create table {database}.orders ({ORDERS})"));
    server.exec(&insert(&database, 1..=40));
    let scenario = scenario(server, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    server.exec(&format!(
        "use {database}; begin; update orders set status = 'done', memo = null where id between 10 and 20; \
         delete from orders where id in (3, 7); commit; flush binary logs; \
         begin; update orders set price = 0; rollback"
    ));
    server.exec(&insert(&database, 41..=60));
    scenario.verify();
    up.terminate();
    assert!(up.wait_exit(Duration::from_secs(60)).success(), "{}", up.stderr());
    server.exec(&format!("use {database}; flush binary logs; update orders set qty = qty + 1"));
    let _up = scenario.start("up");
    scenario.verify();
    let rows = format!("select count(*) as n from {database}.{database}.orders");
    assert_eq!(scenario.query(&rows), ["58"]);
}

/// The source is named after its database: a server ends the connection of a replica whose id a second one uses, and
/// the id comes from the source's name.
fn scenario(mysql: &MySql, database: &str, more: &str) -> Scenario {
    Scenario::new(mysql, database, &[&format!("{database}.*")], more)
}

fn insert(database: &str, ids: std::ops::RangeInclusive<u32>) -> String {
    let row = |id: u32| {
        let memo = ["null", "'문 앞에 놓아 주세요'", "'it''s \\\\ 🌿'"][id as usize % 3];
        let meta = ["null", r#"'{"b":[1,2.5,null],"a":"x"}'"#][id as usize % 2];
        format!(
            "({id},{},'paid',{id}.05,{},{memo},'2026-01-02 03:04:05.{id:06}','2026-02-03 04:05:06',{meta},{},{})",
            id * 7,
            id % 9,
            id % 2,
            f64::from(id) / 7.0
        )
    };
    let rows: Vec<String> = ids.map(row).collect();
    let columns = "id,user_id,status,price,qty,memo,ordered_at,updated_at,meta,is_gift,ratio";
    format!("insert into {database}.orders ({columns}) values {}", rows.join(","))
}

/// Programs that are not ours read what MySQL itself answers.
#[track_caller]
fn others_read_the_same(mysql: &MySql, scenario: &Scenario, database: &str) {
    let mut session = mysql.session();
    session.exec("set time_zone = '+00:00'");
    let expected: Rows =
        session.rows(&format!("select {ORDERS_SELECT} from {database}.orders order by id"));
    for engine in ENGINES {
        let table = format!("{database}.orders");
        let Some(rows) = scenario.rows_read_by(engine, &table, ORDERS_COLUMNS, "id") else {
            return;
        };
        assert_eq!(rows, expected, "{engine}");
    }
}
