//! A server on which nobody writes: the position goes along all the same.

mod harness;
mod scenario;

use harness::MySql;
use scenario::Scenario;

#[test]
fn a_restarted_server_on_which_nobody_writes_is_verified() {
    for options in [&[][..], &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"][..]] {
        let Some(mut mysql) = MySql::start(options) else { return };
        mysql.exec(
            "CREATE DATABASE d; CREATE TABLE d.t (id INT PRIMARY KEY); INSERT INTO d.t VALUES (1)",
        );
        let scenario = Scenario::new(&mysql, "idle", &["d.*"], "");
        let up = scenario.start("up");
        scenario.verify();
        // The server begins a new binlog file, and no transaction comes after it.
        mysql.stop();
        mysql.start_again(options);
        scenario.verify();
        mysql.exec("FLUSH BINARY LOGS");
        scenario.verify();
        drop(up);
    }
}
