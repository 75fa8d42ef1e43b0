//! DDL at the source while Binlake runs: the stream never stops, and the lake's copy is the table as it is then.

mod harness;
mod scenario;

use harness::{MySql, eventually};
use scenario::{CATCH_UP, Scenario};

fn orders(mysql: &MySql, hint: &str) -> String {
    let database = mysql.new_database(hint);
    mysql.exec(&format!(
        "use {database};
         create table orders (id int primary key, name varchar(20) not null, qty int);
         insert into orders values (1, 'one', 10), (2, 'two', 20), (3, 'three', 30), (4, 'four', null)"
    ));
    database
}

/// Only `orders` is captured: what a migration tool makes beside it is not.
fn scenario(mysql: &MySql, database: &str, more: &str) -> Scenario {
    Scenario::new(mysql, database, &[&format!("{database}.orders")], more)
}

fn rows(scenario: &Scenario, database: &str, columns: &str) -> Vec<String> {
    scenario.query(&format!("select {columns} from {database}.{database}.orders order by id"))
}

#[test]
fn swap_as_gh_ost_does_it_leaves_old_rows_with_their_new_columns() {
    let Some(mysql) = MySql::shared() else { return };
    let database = orders(mysql, "ghost");
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database};
         create /* gh-ost */ table {database}._orders_gho like {database}.orders;
         alter /* gh-ost */ table {database}._orders_gho add column price decimal(9,2) not null default 1.50,
             add column twice int as (qty * 2) stored, modify name varchar(40) not null;
         insert /* gh-ost */ ignore into _orders_gho (id, name, qty) select id, name, qty from orders;
         update orders set qty = 21 where id = 2; replace into _orders_gho (id, name, qty) values (2, 'two', 21);
         create table _orders_del (id int auto_increment primary key) comment='ghost-cut-over-sentry';
         drop table if exists _orders_del;
         rename /* gh-ost */ table {database}.orders to {database}._orders_del, {database}._orders_gho to {database}.orders;
         insert into orders (id, name, qty, price) values (5, 'five', 50, 9);
         update orders set qty = 11 where id = 1; delete from orders where id = 3;
         drop table _orders_del"
    ));
    scenario.verify();
    let expected = ["1,one,11,1.50,22", "2,two,21,1.50,42", "4,four,,1.50,", "5,five,50,9.00,100"];
    assert_eq!(rows(&scenario, &database, "id, name, qty, price, twice"), expected);
    assert!(up.is_running());
}

#[test]
fn swap_as_pt_online_schema_change_does_it_goes_on_through_a_crash() {
    let Some(mysql) = MySql::shared() else { return };
    let database = orders(mysql, "ptosc");
    let values: Vec<String> = (10..3000).map(|id| format!("({id}, 'n{id}', {id})")).collect();
    mysql.exec(&format!("insert into {database}.orders values {}", values.join(",")));
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database};
         create table _orders_new like orders;
         alter table _orders_new add column kind enum('a','b') not null default 'b' first, drop column qty;
         create trigger pt_ins after insert on orders for each row
             replace into _orders_new (id, name) values (new.id, new.name);
         create trigger pt_upd after update on orders for each row
             replace into _orders_new (id, name) values (new.id, new.name);
         create trigger pt_del after delete on orders for each row delete ignore from _orders_new where id = old.id;
         insert low_priority ignore into _orders_new (id, name) select id, name from orders lock in share mode;
         update orders set name = 'changed' where id % 100 = 0;
         rename table orders to _orders_old, _orders_new to orders;
         drop table if exists _orders_old;
         drop trigger if exists pt_ins; drop trigger if exists pt_upd; drop trigger if exists pt_del"
    ));
    up.wait_logged(CATCH_UP, "reading the table again");
    up.kill9();
    mysql.exec(&format!("delete from {database}.orders where id % 7 = 0"));
    let _up = scenario.start("up");
    scenario.verify();
    let kinds =
        format!("select kind, count(*) as n from {database}.{database}.orders group by kind");
    let count = mysql.value(&format!("select count(*) from {database}.orders")).unwrap_or_default();
    assert_eq!(scenario.query(&kinds), [format!("b,{count}")]);
}

#[test]
fn history_table_keeps_its_versions_when_its_rows_are_swapped() {
    let Some(mysql) = MySql::shared() else { return };
    let database = orders(mysql, "swaphistory");
    let scenario =
        scenario(mysql, &database, "[[table]]\nmatch = \"*orders\"\nmode = \"history\"\n");
    let _up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database};
         create table copy like orders; alter table copy add column extra int default 7;
         insert into copy (id, name, qty) select id, name, qty from orders;
         rename table orders to old, copy to orders;
         insert into orders values (5, 'five', 50, 8)"
    ));
    let sql = format!("select id, name, _op from {database}.{database}.orders order by id, _seq");
    let expected = ["1,one,r", "2,two,r", "3,three,r", "4,four,r", "5,five,c"];
    scenario.wait_for_query(&sql, &expected);
    // The rows that were read again came before this one, and are not there twice.
    mysql.exec(&format!("update {database}.orders set name = 'ONE' where id = 1"));
    let expected = ["1,one,r", "1,ONE,u", "2,two,r", "3,three,r", "4,four,r", "5,five,c"];
    scenario.wait_for_query(&sql, &expected);
}

#[test]
fn table_that_gets_a_captured_name_is_read_without_a_restart() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("renamed");
    mysql.exec(&format!(
        "use {database}; create table draft (id int primary key, name varchar(20), qty int);
         insert into draft values (1, 'a', 1), (2, 'b', 2);
         create table first (id int primary key); insert into first values (1);
         create table loose (name varchar(20)); insert into loose values ('x'), ('x')"
    ));
    let tables = ["orders", "clicks", "first"].map(|table| format!("{database}.{table}"));
    let tables = tables.each_ref().map(|table| &**table);
    let scenario = Scenario::new(mysql, &database, &tables, "");
    let _up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database}; update draft set qty = 5 where id = 1;
         alter table draft add column z int default 3, rename to orders;
         rename table loose to clicks;
         insert into orders values (3, 'c', 3, 4); insert into clicks values ('y')"
    ));
    scenario.verify();
    assert_eq!(rows(&scenario, &database, "id, name, qty, z"), ["1,a,5,3", "2,b,2,3", "3,c,3,4"]);
    let clicks = format!(
        "select name, count(*) as n from {database}.{database}.clicks group by name order by name"
    );
    scenario.wait_for_query(&clicks, &["x,2", "y,1"]);
}

#[test]
fn partitions_that_go_take_their_rows_out_of_the_lake() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("partitions");
    mysql.exec(&format!(
        "use {database};
         create table orders (id int primary key, name varchar(20)) partition by range (id)
             (partition p0 values less than (10), partition p1 values less than (20),
              partition p2 values less than (30), partition p3 values less than maxvalue);
         insert into orders values (1, 'a'), (11, 'b'), (12, 'c'), (21, 'd'), (31, 'e'), (32, 'f');
         create table shelf (id int primary key, name varchar(20)); insert into shelf values (22, 'swapped in')"
    ));
    let scenario = scenario(mysql, &database, "");
    let _up = scenario.start("up");
    scenario.verify();
    for (ddl, expected) in [
        ("truncate partition p0", vec!["11,b", "12,c", "21,d", "31,e", "32,f"]),
        ("drop partition p1", vec!["21,d", "31,e", "32,f"]),
        ("exchange partition p2 with table shelf", vec!["22,swapped in", "31,e", "32,f"]),
        (
            "reorganize partition p2, p3 into (partition p9 values less than maxvalue)",
            vec!["22,swapped in", "31,e", "32,f"],
        ),
    ] {
        mysql.exec(&format!(
            "use {database}; alter table orders {ddl}; update orders set name = concat(name, '') where id = 31"
        ));
        scenario.verify();
        assert_eq!(rows(&scenario, &database, "id, name"), expected, "{ddl}");
    }
}

#[test]
fn tables_and_databases_that_are_dropped_are_empty_in_the_lake() {
    let Some(mysql) = MySql::shared() else { return };
    let database = orders(mysql, "dropped");
    let scenario = scenario(mysql, &database, "");
    let mut up = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "use {database}; drop table /*!50100 if exists */ orders;
         create table orders (id int primary key, name varchar(20) not null, qty int, note json);
         insert into orders values (7, 'seven', 70, '{{\"a\": 1}}')"
    ));
    scenario.verify();
    assert_eq!(rows(&scenario, &database, "id, name, qty"), ["7,seven,70"]);
    mysql.exec(&format!("drop database {database}"));
    eventually(CATCH_UP, "the lake's copy is empty", || {
        rows(&scenario, &database, "id").is_empty()
    });
    assert!(up.is_running());
}
