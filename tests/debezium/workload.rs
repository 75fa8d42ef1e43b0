//! What the two readers read: rows that are there before, and changes of every form while they follow.

use fastrand::Rng;

use crate::{
    columns::{DEFAULTS, KINDS, Kind, ZERO_DATES},
    harness::{MySql, Session},
};

/// Databases that the readers take; the last one tells that everything is there.
pub const DATABASES: [&str; 6] = ["kinds", "shop", "plant", "moves", "od-d b", "z_end"];

/// Tables and rows of before.
pub fn before(mysql: &MySql, seed: u64) {
    let mut session = session(mysql);
    for database in DATABASES {
        session.exec(&format!("create database `{database}` character set utf8mb4"));
    }
    session.exec("use kinds");
    for (name, kind) in kinds() {
        session.exec(&create_kind(&name, kind));
        insert_kind(&mut session, &name, kind, 0);
    }
    for (name, kind) in keys() {
        session.exec(&format!("create table {name} (v {} primary key, n int)", kind.definition));
        session.exec(&format!("insert into {name} values ({}, 1)", kind.values[0]));
    }
    for (i, (definition, default)) in DEFAULTS.iter().enumerate() {
        // TEXT, BLOB and JSON take expressions; a nullable TIMESTAMP says so.
        session.exec(&format!(
            "create table d{i:02} (id int primary key, v {definition} null default {default},
             w {definition} not null default {default})"
        ));
        insert_defaults(&mut session, &format!("d{i:02}"), 0);
    }
    shop_tables(&mut session);
    plant_tables(&mut session);
    moving_tables(&mut session);
    odd_tables(&mut session);
    random_changes(&mut session, seed, 60);
    session.exec("create table z_end.sentinel (id int primary key)");
}

/// The changes while both readers follow. A row in `z_end.sentinel` comes after them.
pub fn during(mysql: &MySql, seed: u64) {
    let mut session = session(mysql);
    session.exec("use kinds");
    for (name, kind) in kinds() {
        insert_kind(&mut session, &name, kind, 100);
        session.exec(&format!("update {name} set v = null where id = 100"));
        session.exec(&format!("update {name} set id = id + 1000 where id = 0"));
        session.exec(&format!("delete from {name} where id in (1, 100)"));
    }
    for (name, kind) in keys() {
        session.exec(&format!("update {name} set n = 2"));
        for value in kind.values[1..].iter().filter(|value| **value != "NULL") {
            // The key of the row moves from value to value, each with its two headers.
            session.exec(&format!("update {name} set v = {value}"));
        }
        session.exec(&format!(
            "delete from {name}; insert into {name} values ({}, 3)",
            kind.values[0]
        ));
    }
    for i in 0..DEFAULTS.len() {
        let name = format!("d{i:02}");
        insert_defaults(&mut session, &name, 100);
        session.exec(&format!("update {name} set v = null where id = 100"));
        session.exec(&format!("delete from {name} where id = 0"));
    }
    random_changes(&mut session, seed + 1, 200);
    plant_changes(&mut session);
    moving_changes(&mut session);
    odd_changes(&mut session);
    session.exec("set session binlog_transaction_compression = on");
    random_changes(&mut session, seed + 2, 60);
}

/// Fewer tables, for the records that go with every transaction.
pub fn before_transactions(mysql: &MySql, seed: u64) {
    let mut session = session(mysql);
    for database in ["shop", "plant", "z_end"] {
        session.exec(&format!("create database `{database}`"));
    }
    shop_tables(&mut session);
    plant_tables(&mut session);
    random_changes(&mut session, seed, 20);
    session.exec("create table z_end.sentinel (id int primary key)");
}

/// Transactions of every form, with statements between them.
pub fn transactions(mysql: &MySql, seed: u64) {
    let mut session = session(mysql);
    random_changes(&mut session, seed + 1, 150);
    plant_changes(&mut session);
    session.exec("alter table shop.maybe add column c int; truncate table shop.clicks; flush logs");
    session.exec("set session binlog_transaction_compression = on");
    random_changes(&mut session, seed + 2, 50);
    session.exec(
        "set session binlog_transaction_compression = off, session binlog_rows_query_log_events = on",
    );
    random_changes(&mut session, seed + 3, 20);
}

fn session(mysql: &MySql) -> Session {
    let mut session = mysql.session();
    session.exec("set sql_mode = '', time_zone = '+00:00'");
    session
}

fn kinds() -> impl Iterator<Item = (String, &'static Kind)> {
    let named = |prefix: &'static str, kinds: &'static [Kind]| {
        kinds.iter().enumerate().map(move |(i, kind)| (format!("{prefix}{i:02}"), kind))
    };
    named("k", KINDS).chain(named("z", ZERO_DATES))
}

/// The types that a primary key may have. Not those of which a value differs: the key and its headers would only say
/// so again.
fn keys() -> impl Iterator<Item = (String, &'static Kind)> {
    const NEVER: [&str; 8] = ["text", "blob", "json", "geom", "point", "line", "polygon", "vector"];
    const DIFFERENT: [&str; 3] = ["early", "year", "b,c"];
    let fits =
        |kind: &Kind| !NEVER.iter().chain(&DIFFERENT).any(|word| kind.definition.contains(word));
    kinds().filter(move |(_, kind)| fits(kind)).map(|(name, kind)| (format!("p_{name}"), kind))
}

fn create_kind(name: &str, kind: &Kind) -> String {
    let definition = kind.definition;
    let (base, srid) = match definition.split_once(" srid ") {
        Some((base, srid)) => (base, format!("srid {srid}")),
        None => (definition, String::new()),
    };
    format!(
        "create table {name} (id int primary key, v {base} null {srid}, w {base} not null {srid})"
    )
}

fn insert_kind(session: &mut Session, name: &str, kind: &Kind, first: usize) {
    for (i, value) in kind.values.iter().enumerate() {
        let required = if *value == "NULL" { kind.values[0] } else { value };
        session.exec(&format!("insert into {name} values ({}, {value}, {required})", first + i));
    }
}

fn insert_defaults(session: &mut Session, name: &str, first: usize) {
    session.exec(&format!("insert into {name} (id) values ({first}), ({})", first + 1));
    session.exec(&format!("insert into {name} (id, v) values ({}, null)", first + 2));
}

/// Tables of the random changes: one key, a key of two columns in another order, no key, only a unique one.
fn shop_tables(session: &mut Session) {
    session.exec(
        "use shop;
         create table orders (id bigint unsigned not null auto_increment primary key, user_id int not null,
           status enum('created','paid','shipped') default 'created', price decimal(12,2) not null default 0.00,
           memo varchar(200), ordered_at datetime(6), updated_at timestamp null, meta json);
         create table items (pos int not null, order_id bigint not null, name varchar(50) default 'x', qty int,
           primary key (order_id, pos));
         create table clicks (page varchar(50), at datetime);
         create table coupons (code varchar(20) not null, note text, taken int, unique key by_code (code));
         create table maybe (a int, b int, unique key by_a (a));
         create table two_unique (a int not null, b int not null, c int, unique key u2 (b, a), unique key u1 (c));
         create table uuids (id binary(16) primary key, n int);
         create table texts (k varchar(20) character set latin1 not null primary key, at timestamp not null)",
    );
}

fn random_changes(session: &mut Session, seed: u64, transactions: usize) {
    let mut random = Rng::with_seed(seed);
    session.exec("use shop");
    for _ in 0..transactions {
        let wrapped = random.u8(..).is_multiple_of(3);
        if wrapped {
            session.exec("begin");
        }
        for i in 0..random.usize(1..4) {
            if wrapped && i == 1 {
                session.exec("savepoint middle");
            }
            let statement = random_statement(&mut random);
            // A key that is there already fails the statement, and that is a form as well.
            let _ = session.try_exec(&statement);
        }
        if wrapped {
            if random.u8(..).is_multiple_of(5) {
                // The savepoint is not there when the transaction had one statement.
                let _ = session.try_exec("rollback to savepoint middle");
            }
            session.exec(if random.u8(..).is_multiple_of(8) { "rollback" } else { "commit" });
        }
    }
}

fn random_statement(random: &mut Rng) -> String {
    let (a, b, c) = (random.u32(1..80), random.u32(1..80), random.u32(..));
    let text = ["null", "''", "'문 앞'", "'it''s \\\\ 🌿'", "repeat('x', 500)"][random.usize(..5)];
    match random.u32(..16) {
        0..=2 => format!(
            "insert into orders (user_id, price, memo, ordered_at, meta)
             values ({a}, {b}.{:02}, {text}, '2026-01-02 03:04:05.{:06}', '{{\"n\": {a}}}'), ({b}, 1, null, null, null)",
            c % 100,
            c % 1_000_000
        ),
        3 => format!("update orders set status = 'paid', price = price + 0.01 where id % 7 = {}", a % 7),
        4 => format!("delete from orders where id = {a}"),
        5 => format!("update orders set id = id + 1000 where id = {a}"),
        6 => format!("insert into items values ({}, {a}, {text}, null), ({}, {b}, 'y', {a})", c % 9, c % 7),
        7 => format!("update items set pos = pos + 100, qty = {b} where order_id = {a}"),
        8 => format!("insert into items values (1, {a}, default, 1) on duplicate key update qty = {b}"),
        9 => format!("insert into clicks values ({text}, '2026-01-01'), (null, null)"),
        10 => format!("update clicks set at = '2026-02-0{}' limit 3", a % 9 + 1),
        11 => format!("replace into coupons values ('c{}', {text}, {b})", a % 20),
        12 => format!("insert into maybe values ({}, {b})", if a % 5 == 0 { "null".into() } else { a.to_string() }),
        13 => format!("replace into two_unique values ({}, {}, {b})", a % 9, b % 9),
        14 => format!("replace into uuids values (unhex(md5({}) ), {c} % 1000)", a % 30),
        _ => format!("replace into texts values ('é{}', '2026-01-01 00:00:{:02}')", a % 30, b % 60),
    }
}

/// Forms of tables and transactions.
fn plant_tables(session: &mut Session) {
    session.exec(
        "use plant;
         create table computed (id int primary key, a int, b int as (a * 2) virtual, c int as (a * 3) stored not null,
           d int invisible default 5);
         insert into computed (id, a) values (1, 1), (2, null);
         create table parent (id int primary key); create table child (id int primary key, parent_id int,
           foreign key (parent_id) references parent (id) on delete cascade on update cascade);
         insert into parent values (1), (2), (3); insert into child values (1, 1), (2, 1), (3, 2), (4, 3);
         create table plain (id int primary key, n int) engine = MyISAM;
         insert into plain values (1, 1), (2, 2);
         create table big (id int primary key, v longtext, w longblob);
         insert into big values (1, repeat('가', 500000), repeat(x'ff', 700000));
         create table many (id int primary key, v varchar(100));
         create table parted (id int primary key, n int) partition by hash (id) partitions 3;
         insert into parted values (1, 1), (2, 2), (3, 3);
         create table empty_at_first (id int primary key, v int);
         set session sql_generate_invisible_primary_key = on;
         create table hidden_key (n int); insert into hidden_key values (1), (2);
         set session sql_generate_invisible_primary_key = off",
    );
}

fn plant_changes(session: &mut Session) {
    let rows: Vec<String> = (0..1000).map(|i| format!("({i}, repeat('v', {}))", i % 90)).collect();
    session.exec(&format!("use plant; insert into many values {}", rows.join(",")));
    session.exec(
        "update many set v = concat(v, '!') where id % 2 = 0;
         delete from many where id % 3 = 0;
         insert into computed (id, a, d) values (3, 3, 3); update computed set a = 7 where id = 1;
         delete from computed where id = 2;
         delete from parent where id = 1; update parent set id = 20 where id = 2;
         insert into plain values (3, 3); update plain set n = 9; delete from plain where id = 1;
         insert into big values (2, repeat('나', 300000), null); update big set v = 'small' where id = 1;
         update parted set n = n + 1; update parted set id = 7 where id = 1; delete from parted where id = 2;
         insert into empty_at_first values (1, 1);
         insert into hidden_key values (3); update hidden_key set n = n * 10; delete from hidden_key where n = 10;
         begin; insert into parent values (50); insert into child values (50, 50);
         update child set id = 51 where id = 50; savepoint a; delete from child; rollback to savepoint a;
         insert into shop.clicks values ('both', now()); commit;
         begin; insert into parent values (60); rollback;
         begin; insert into many values (5000, 'x'); update many set id = 5001 where id = 5000;
         delete from many where id = 5001; commit",
    );
}

/// Tables whose shape changes.
fn moving_tables(session: &mut Session) {
    session.exec(
        "use moves;
         create table grows (id int primary key, a int); insert into grows values (1, 1), (2, 2);
         create table emptied (id int primary key, a int); insert into emptied values (1, 1), (2, 2);
         create table dropped (id int primary key, a int); insert into dropped values (1, 1);
         create table old_name (id int primary key, a int); insert into old_name values (1, 1);
         create table swap_a (id int primary key, a int); insert into swap_a values (1, 1);
         create table swap_b (id int primary key, a int, b varchar(10)); insert into swap_b values (2, 2, 'b')",
    );
}

fn moving_changes(session: &mut Session) {
    session.exec(
        "use moves;
         alter table grows add column b varchar(20) default 'new'; insert into grows values (3, 3, 'c');
         alter table grows add column c int not null default 7 after id; insert into grows (id, a) values (4, 4);
         update grows set a = a + 1;
         alter table grows drop column a; insert into grows values (5, 5, 'e');
         alter table grows rename column b to bb; update grows set bb = 'all';
         alter table grows modify column c bigint unsigned null; insert into grows values (6, null, 'f');
         alter table grows modify column bb varchar(40) character set latin1 first; insert into grows values ('é', 7, 7);
         alter table grows alter column c set default 9; insert into grows (id) values (8);
         alter table grows add column e enum('a','b') default 'b', add column t timestamp(3) null, add index (c);
         insert into grows (id) values (9); update grows set e = 'a', t = '2026-01-01 00:00:00.5' where id = 9;
         alter table grows modify column e enum('a','b','c'); update grows set e = 'c' where id = 9;
         alter table grows drop primary key, add primary key (bb, id); insert into grows (id, bb) values (10, 'x');
         update grows set bb = 'y' where id = 10;
         truncate table emptied; insert into emptied values (3, 3);
         drop table dropped; create table dropped (id int primary key, b varchar(10)); insert into dropped values (1, 'x');
         rename table old_name to new_name; insert into new_name values (2, 2);
         rename table swap_a to swap_t, swap_b to swap_a, swap_t to swap_b;
         insert into swap_a values (3, 3, 'c'); insert into swap_b values (4, 4);
         create table made (id int primary key, v varchar(10) default 'z'); insert into made (id) values (1);
         create table like_grows like grows; insert into like_grows (id, bb) values (1, 'x');
         create table selected (primary key (id)) as select id, a from emptied; insert into selected values (9, 9);
         create table real_and_bool (id int primary key, r real, b boolean, n nchar(3), s serial);
         insert into real_and_bool values (1, 1.1, true, 'abc', 1);
         create database later; create table later.t (id int primary key); insert into later.t values (1)",
    );
    session.exec(
        "create table shapes (id int primary key, a int, s varchar(9)); insert into shapes values (1, 1, 'a');
         alter table shapes add column g int as (id * 2) stored; insert into shapes (id, a) values (2, 2);
         alter table shapes change column a aa bigint not null; update shapes set aa = 5000000000;
         alter table shapes convert to character set latin1; update shapes set s = 'é' where id = 1;
         alter table shapes drop column s, add column s date; update shapes set s = '2026-01-01';
         alter table shapes rename to shapes2; insert into shapes2 (id, aa) values (3, 3);
         alter /* a comment */ table `moves`.`shapes2` /*!80000 add column v int invisible */; -- and another
         insert into shapes2 (id, aa, v) values (4, 4, 4);
         alter table shapes2 alter column v set visible, add unique key (v), comment 'renamed, altered';
         update shapes2 set v = id; optimize table shapes2; analyze table shapes2;
         create temporary table passing (id int primary key); insert into passing values (1); drop table passing;
         create view seen as select * from shapes2; create trigger noted before insert on shapes2 for each row
           set new.aa = 7; insert into shapes2 (id, aa) values (5, 5); drop view seen;
         create table gone (id int primary key); drop table if exists gone, never_there;
         create table if not exists shapes2 (id int); delete from shapes2 where id < 3;
         create table ghost like shapes2; insert into ghost (id, aa) select id, aa from shapes2;
         rename table shapes2 to old_shapes, ghost to shapes2; insert into shapes2 (id, aa) values (9, 9);
         create table of_parts (id int primary key, n int) partition by range (id)
           (partition p0 values less than (10), partition p1 values less than (20));
         insert into of_parts values (1, 1), (11, 11); alter table of_parts add partition
           (partition p2 values less than (30)); insert into of_parts values (21, 21);
         alter table of_parts reorganize partition p1, p2 into (partition p3 values less than (40));
         update of_parts set n = 0",
    );
}

/// Names that neither Kafka nor Avro takes as they are.
fn odd_tables(session: &mut Session) {
    session.exec(
        "use `od-d b`;
         create table `t-1` (id int primary key, v int); insert into `t-1` values (1, 1);
         create table `한글` (id int primary key, v int); insert into `한글` values (1, 1);
         create table `Upper` (`Id` int primary key, `weird-name` int, `1st` int, `with space` int, `열` int);
         insert into `Upper` values (1, 1, 1, 1, 1);
         create table `odd.dot$` (`a.b` int primary key, `$c` int); insert into `odd.dot$` values (1, 1)",
    );
}

fn odd_changes(session: &mut Session) {
    session.exec(
        "use `od-d b`;
         insert into `t-1` values (2, 2); insert into `한글` values (2, 2); insert into `Upper` values (2, 2, 2, 2, 2);
         insert into `odd.dot$` values (2, 2); update `Upper` set `weird-name` = 7 where `Id` = 1",
    );
}
