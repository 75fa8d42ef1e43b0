//! Definitions as applications and tools write them, and what becomes of a table's columns.

use proptest::prelude::*;

use super::*;

/// `a int primary key, b text, c enum('x')`.
fn table() -> TableShape {
    created("CREATE TABLE t (a INT NOT NULL, b TEXT, c ENUM('x'), PRIMARY KEY (a))")
}

#[track_caller]
fn created(sql: &str) -> TableShape {
    created_shape(sql, Dialect::default()).unwrap_or_else(|| panic!("not certain: {sql}"))
}

/// The columns as `name kind`, and the key behind a slash.
fn told(shape: &TableShape) -> String {
    let column = |column: &NamedColumn| {
        let mut text = format!("{} {}", column.name, column.kind);
        if !column.numbers.is_empty() {
            text += &format!("{:?}", column.numbers).replace(' ', "");
        }
        if column.unsigned {
            text += " unsigned";
        }
        if !column.members.is_empty() {
            text += &format!(" ({})", column.members.join("|"));
        }
        text
    };
    let columns: Vec<String> = shape.columns.iter().map(column).collect();
    format!("{} / {}", columns.join(", "), shape.key.join(", "))
}

#[test]
fn alterations_are_followed() {
    for (sql, expected) in [
        ("ADD d DATE", "a int, b text, c enum (x), d date / a"),
        ("ADD COLUMN IF NOT EXISTS d TIME(3) FIRST", "d time[3], a int, b text, c enum (x) / a"),
        ("ADD COLUMN IF NOT EXISTS b DATE", "a int, b text, c enum (x) / a"),
        (
            "ADD d DECIMAL(10, 2) COMMENT 'AFTER c, FIRST' AFTER a",
            "a int, d decimal[10,2], b text, c enum (x) / a",
        ),
        (
            "ADD (d BIT, e DEC COMMENT 'x`' NULL, KEY k (d))",
            "a int, b text, c enum (x), d bit[1], e decimal[10,0] / a",
        ),
        (
            "ADD d INT1 UNSIGNED AFTER a, ADD e DOUBLE PRECISION AFTER d",
            "a int, d tinyint unsigned, e double, b text, c enum (x) / a",
        ),
        ("DROP b, DROP COLUMN IF EXISTS zz", "a int, c enum (x) / a"),
        ("DROP b, ADD b JSON FIRST", "b json, a int, c enum (x) / a"),
        ("RENAME COLUMN a TO b, RENAME COLUMN b TO a", "b int, a text, c enum (x) / b"),
        (
            "CHANGE a id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT",
            "id bigint unsigned, b text, c enum (x) / id",
        ),
        (
            "CHANGE COLUMN `c` `first` SET('a,b','c''d','\\'') FIRST",
            "first set (a,b|c'd|'), a int, b text / a",
        ),
        ("MODIFY b VARCHAR(9) CHARACTER SET binary AFTER c", "a int, c enum (x), b bytes / a"),
        ("MODIFY B LONG VARBINARY, ALTER C SET DEFAULT 'x'", "a int, B bytes, c enum (x) / a"),
        ("MODIFY b CHAR(4) BYTE DEFAULT 'first' NULL", "a int, b bytes, c enum (x) / a"),
        (
            "MODIFY b NATIONAL CHARACTER VARYING(20) COLLATE utf8mb3_bin",
            "a int, b text, c enum (x) / a",
        ),
        ("ADD d INT AS (a * (2 + 1)) STORED AFTER a", "a int, d int, b text, c enum (x) / a"),
        ("ADD d SERIAL", "a int, b text, c enum (x), d bigint unsigned / a"),
        (
            "ADD d FLOAT(30) REFERENCES u (after) ON DELETE SET NULL ON UPDATE CASCADE",
            "a int, b text, c enum (x), d double / a",
        ),
        (
            "ADD d TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6) FIRST",
            "d timestamp[6], a int, b text, c enum (x) / a",
        ),
        (
            "ADD INDEX first (b(3)), ADD CONSTRAINT k FOREIGN KEY (b) REFERENCES u (x), ADD CHECK (a > 1)",
            "a int, b text, c enum (x) / a",
        ),
        (
            "ADD UNIQUE KEY u (b), DROP INDEX v, RENAME INDEX i TO j",
            "a int, b text, c enum (x) / a",
        ),
        (
            "DROP PRIMARY KEY, ADD CONSTRAINT PRIMARY KEY USING BTREE (c, a DESC)",
            "a int, b text, c enum (x) / c, a",
        ),
        (
            "ADD PARTITION (PARTITION p VALUES LESS THAN (3)), DROP PARTITION q",
            "a int, b text, c enum (x) / a",
        ),
        (
            "ENGINE = InnoDB COMMENT 'DROP b' AUTO_INCREMENT 7, ALGORITHM=INPLACE, LOCK=NONE",
            "a int, b text, c enum (x) / a",
        ),
        ("CONVERT TO CHARACTER SET latin1, ORDER BY a, b", "a int, b text, c enum (x) / a"),
        (
            "ADD key_part INT UNIQUE KEY, ADD `key` INT",
            "a int, b text, c enum (x), key_part int, key int / a",
        ),
        (
            "ADD d GEOMETRYCOLLECTION SRID 4326 INVISIBLE",
            "a int, b text, c enum (x), d geometry / a",
        ),
        ("ADD d UUID", "a int, b text, c enum (x), d any / a"),
    ] {
        let changes = column_changes(&format!("ALTER TABLE d.t {sql}"), Dialect::default());
        let shape = table().altered(&changes).unwrap_or_else(|| panic!("not certain: {sql}"));
        assert_eq!(told(&shape), expected, "{sql}");
    }
}

#[test]
fn what_is_not_certain_is_said_to_be_so() {
    for sql in [
        "ALTER TABLE t DROP PRIMARY KEY",
        "ALTER TABLE t DROP a",
        "ALTER TABLE t DROP zz",
        "ALTER TABLE t ADD b INT",
        "ALTER TABLE t ADD d INT AFTER zz",
        "ALTER TABLE t MODIFY zz INT",
        "ALTER TABLE t RENAME COLUMN zz TO y",
        "ALTER TABLE t ADD PRIMARY KEY (b(10))",
        "ALTER TABLE t ADD PRIMARY KEY ((a + 1))",
        "ALTER TABLE t ADD SYSTEM VERSIONING",
        "ALTER TABLE t CHANGE",
        "ALTER TABLE t ADD",
        "ALTER",
    ] {
        let changes = column_changes(sql, Dialect::default());
        assert_eq!(table().altered(&changes), None, "{sql}");
    }
    // Without a primary key, any other may be or become the table's.
    let mut table = table();
    table.primary = false;
    let changes = column_changes("CREATE UNIQUE INDEX i ON t (b)", Dialect::default());
    assert_eq!(table.altered(&changes), None);
}

#[test]
fn created_tables_are_read() {
    let sql = "CREATE TABLE IF NOT EXISTS `d`.`t` (
        id BIGINT(20) UNSIGNED ZEROFILL NOT NULL AUTO_INCREMENT COMMENT 'it''s, (odd', -- the key
        name VARCHAR(20) /*!80000 CHARACTER SET latin1 */ DEFAULT 'a,b)', KEY k (name(3)),
        at DATETIME(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3), ok BOOLEAN, r REAL, p POINT NOT NULL,
        CONSTRAINT `pk` PRIMARY KEY (id), UNIQUE (name), CHECK (ok IN (0, 1))
    ) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 4";
    let expected =
        "id bigint unsigned, name text, at datetime[3], ok tinyint, r real, p point / id";
    assert_eq!(told(&created(sql)), expected);
    assert_eq!(
        told(&created("CREATE TABLE t (k VARBINARY(3) PRIMARY KEY, v INT KEY_X)")),
        "k bytes, v int / k"
    );
    for sql in [
        "CREATE TABLE t (a INT)",
        "CREATE TABLE t (a INT PRIMARY KEY) SELECT 1 AS b",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TABLE t LIKE u",
        "CREATE TABLE t (LIKE u)",
        "CREATE TABLE t (",
    ] {
        assert_eq!(created_shape(sql, Dialect::default()), None, "{sql}");
    }
    let like = |sql| created_like(sql, Dialect::default());
    assert_eq!(like("CREATE TABLE x.t LIKE `y`.u"), Some((Some("y".into()), "u".into())));
    assert_eq!(like("create table t (like u)"), Some((None, "u".into())));
    assert_eq!(like("CREATE TABLE t (a INT)"), None);
}

proptest! {
    #[test]
    fn any_text_is_survived(tail in "[`'\"(),a-z0-9 /*!.=-]{0,60}", ansi: bool) {
        let dialect = Dialect { ansi_quotes: ansi, ..Dialect::default() };
        for start in ["", "ALTER TABLE t ", "ALTER TABLE t ADD ", "ALTER TABLE t ADD (", "ALTER TABLE t CHANGE a ", "CREATE TABLE t ("] {
            let sql = format!("{start}{tail}");
            table().altered(&column_changes(&sql, dialect));
            created_shape(&sql, dialect);
            created_like(&sql, dialect);
        }
    }

    /// Whatever columns are added, moved and dropped, none is there twice and none is lost.
    #[test]
    fn columns_are_neither_doubled_nor_lost(steps in prop::collection::vec((0usize..4, 0usize..6, 0usize..6), 0..12)) {
        let mut shape = table();
        for (kind, one, other) in steps {
            let before = shape.columns.len();
            let sql = match kind {
                0 => format!("ADD n{one} INT AFTER n{other}"),
                1 => format!("DROP n{one}"),
                2 => format!("MODIFY n{one} TEXT FIRST"),
                _ => format!("RENAME COLUMN n{one} TO n{other}"),
            };
            let changes = column_changes(&format!("ALTER TABLE t {sql}"), Dialect::default());
            let Some(after) = shape.altered(&changes) else { continue };
            let grown = match kind { 0 => before + 1, 1 => before - 1, _ => before };
            prop_assert_eq!(after.columns.len(), grown, "{}", sql);
            shape = after;
        }
    }
}
