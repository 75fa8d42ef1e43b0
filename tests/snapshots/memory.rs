//! The memory that a snapshot needs, whatever the rows and the key.

use super::{
    harness::{Binlake, MySql},
    log_audit::Log,
    log_config,
    scenario::Scenario,
};

/// What reading may need on top of a reader that has nothing to read: with its 30 MB a release build then stays below
/// 250 MB. Each of the tables is larger.
const GROWTH_MAX_MB: u64 = 220;

/// A key that is not one integer, rows of a megabyte between small ones, and a composite key with one value of its
/// first column in nine rows of ten; eight readers at once.
#[test]
fn whole_table_in_memory_large_rows_and_skewed_keys_are_read_in_pieces() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("memory");
    // Without a binlog: the rows shall be read by the snapshot, and the disk be spared.
    mysql.exec(&format!(
        "use {database};
         set sql_log_bin = 0;
         set cte_max_recursion_depth = 1000000;
         create table nothing (k int primary key);
         create table numbers (n int primary key) as
           with recursive up (n) as (select 1 union all select n + 1 from up where n < 150000) select n from up;
         create table large (k varchar(40) primary key, row_text longtext);
         insert into large select concat(crc32(n), n), repeat('x', if(n % 8 = 0, 1048576, 100)) from numbers
           where n <= 2400;
         create table skewed (a int, b int, row_text text, primary key (a, b));
         insert into skewed select if(n % 10 = 0, n, 7), n, repeat('y', 2000) from numbers"
    ));
    let idle = peak_mb(mysql, &[(format!("{database}.nothing"), 0)]);
    let large = (format!("{database}.large"), 2400);
    let skewed = (format!("{database}.skewed"), 150_000);
    let peak = peak_mb(mysql, &[large, skewed]);
    println!("{idle} MB with nothing to read, {peak} MB at most");
    assert!(peak - idle <= GROWTH_MAX_MB, "{peak} MB were needed, {idle} MB before");
}

/// The peak of a reader that has read these tables, with so many rows each.
fn peak_mb(mysql: &MySql, tables: &[(String, u64)]) -> u64 {
    let names: Vec<String> = tables.iter().map(|(name, _)| name.clone()).collect();
    let patterns: Vec<&str> = names.iter().map(String::as_str).collect();
    let embedded = "[change_log]\nkind = \"embedded\"\n";
    let scenario = Scenario::with_source_settings(
        mysql,
        "memory",
        &patterns,
        "snapshot_readers = 8",
        embedded,
    );
    let log = Log::new(log_config(&scenario, None), "memory");
    let mut reader = scenario.start("reader");
    log.wait_until_read(&mut reader, u64::MAX, &names, |_| {});
    let read = log.position().expect("a position").snapshots;
    for (name, rows) in tables {
        assert_eq!(read[name].rows, *rows, "rows of {name}");
    }
    vm_hwm_mb(&reader)
}

fn vm_hwm_mb(process: &Binlake) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id()));
    let status = status.expect("it is running");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    peak >> 10
}
