-- What the corpora of the fuzz targets are made from: all types, all forms of rows, JSON and statements.
CREATE DATABASE fuzz;
USE fuzz;
CREATE TABLE numbers (
  id BIGINT UNSIGNED PRIMARY KEY, t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, m MEDIUMINT, mu MEDIUMINT UNSIGNED, i INT,
  iu INT UNSIGNED, b BIGINT, f FLOAT, d DOUBLE, n DECIMAL(20,6), w DECIMAL(65,30), y YEAR, bit1 BIT(1), bit40 BIT(40));
INSERT INTO numbers VALUES
  (1, -128, 255, -32768, -8388608, 16777215, -2147483648, 4294967295, -9223372036854775808, 1.5, -2.5e300,
   -12345678901234.123456, 12345678901234567890123456789012345.012345678901234567890123456789, 2026, b'1', 0x0102030405),
  (18446744073709551615, NULL, 0, 1, -1, 0, 7, 0, 9223372036854775807, NULL, 0, 0.000001, -0.5, 0, NULL, NULL);
UPDATE numbers SET t = 5, n = NULL;
UPDATE numbers SET id = 7 WHERE id = 1;
DELETE FROM numbers;
CREATE TABLE moments (
  id INT AUTO_INCREMENT PRIMARY KEY, d DATE, t TIME, t3 TIME(3), t6 TIME(6), dt DATETIME, dt2 DATETIME(2),
  dt6 DATETIME(6), ts TIMESTAMP NULL, ts4 TIMESTAMP(4) NULL, ts6 TIMESTAMP(6) NULL);
SET sql_mode = '';
INSERT INTO moments VALUES
  (NULL, '2026-11-22', '-838:59:59', '12:34:56.789', '-00:00:00.000001', '1000-01-01', '9999-12-31 23:59:59.99',
   '2026-02-28 01:02:03.000004', '1970-01-01 12:00:01', '2038-01-01 00:00:00.1234', '2026-06-01 00:00:00.654321'),
  (NULL, '0000-00-00', NULL, NULL, NULL, '2026-00-10', '0000-00-00', NULL, '0000-00-00', NULL, NULL);
DELETE FROM moments WHERE id = 1;
CREATE TABLE texts (
  id BINARY(4) PRIMARY KEY, v VARCHAR(300), c CHAR(10), l VARCHAR(20) CHARACTER SET latin1,
  j VARCHAR(20) CHARACTER SET sjis, u VARCHAR(20) CHARACTER SET utf16, g VARCHAR(20) CHARACTER SET gb18030,
  vb VARBINARY(20), b3 MEDIUMBLOB, tt TINYTEXT, lt LONGTEXT, e ENUM('a', 'b,c', ''), s SET('x', 'y', 'z''z'),
  e2 ENUM('é', 'ü') CHARACTER SET latin1);
INSERT INTO texts VALUES
  ('ab', 'Grüße 😀', 'pad  ', 'café', 'テスト', '😀é', '中文', 0x00ff, 0x010203, 't', REPEAT('long ', 30), 'b,c', 'x,z''z', 'ü'),
  (0x00000000, NULL, NULL, '', '', '', '', '', '', '', '', '', '', NULL);
SET SESSION binlog_row_image = 'MINIMAL';
UPDATE texts SET v = 'changed', c = NULL;
SET SESSION binlog_row_image = 'NOBLOB';
UPDATE texts SET c = 'again';
SET SESSION binlog_row_image = 'FULL';
DELETE FROM texts;
CREATE TABLE places (id INT PRIMARY KEY, g GEOMETRY, p POINT SRID 4326, v VECTOR(3));
INSERT INTO places VALUES
  (1, ST_GeomFromText('LINESTRING(0 0,1 1)'), ST_GeomFromText('POINT(1 2)', 4326), STRING_TO_VECTOR('[1,2,3]')),
  (2, ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))'), NULL, NULL);
CREATE TABLE keyless (a INT, b VARCHAR(5));
INSERT INTO keyless VALUES (1, 'x'), (NULL, NULL);
UPDATE keyless SET b = 'y';
DELETE FROM keyless;
CREATE TABLE two_keys (a INT, b VARCHAR(5), c INT, PRIMARY KEY (b, a));
INSERT INTO two_keys VALUES (1, 'x', 2), (2, 'y', 3);
UPDATE two_keys SET a = a + 10, b = 'zz';
CREATE TABLE `json` (d JSON NOT NULL);
INSERT INTO `json` VALUES ('null');
INSERT INTO `json` VALUES ('true');
INSERT INTO `json` VALUES ('-32768');
INSERT INTO `json` VALUES ('65535');
INSERT INTO `json` VALUES ('-2147483648');
INSERT INTO `json` VALUES ('4294967295');
INSERT INTO `json` VALUES ('-9223372036854775808');
INSERT INTO `json` VALUES ('18446744073709551615');
INSERT INTO `json` VALUES ('1.7976931348623157e308');
INSERT INTO `json` VALUES ('[2.5, -0.0, 1e-300, 12345678.5]');
INSERT INTO `json` VALUES ('"text with \\"quotes\\", \\u0001 and 😀"');
INSERT INTO `json` VALUES ('{}');
INSERT INTO `json` VALUES ('[[], {}, [1, [2, [3, {"a": [4]}]]]]');
INSERT INTO `json` VALUES ('{"a": 1, "b": [true, false, null, 70000, -70000, 5000000000], "": "empty", "ü": {"x": "y"}}');
INSERT INTO `json` VALUES (JSON_OBJECT('dec', CAST(123.4500 AS DECIMAL(20,4)), 'neg', CAST(-0.5 AS DECIMAL(3,1))));
INSERT INTO `json` VALUES (JSON_ARRAY(CAST('2026-11-22' AS DATE), CAST('2026-11-22 01:02:03.5' AS DATETIME(6)),
  CAST('-12:34:56' AS TIME(6)), CAST(TIMESTAMP '2026-01-01 00:00:00' AS DATETIME)));
INSERT INTO `json` VALUES (JSON_ARRAY(x'00ff10', b'101', ST_AsGeoJSON(ST_GeomFromText('POINT(1 2)'))));
INSERT INTO `json` VALUES (JSON_OBJECT('large', REPEAT('0123456789', 7000)));
SET SESSION binlog_row_value_options = 'PARTIAL_JSON';
CREATE TABLE partial (id INT PRIMARY KEY, d JSON);
INSERT INTO partial VALUES (1, JSON_OBJECT('a', REPEAT('x', 50), 'b', JSON_ARRAY(1, 2, 3)));
UPDATE partial SET d = JSON_REPLACE(d, '$.a', 'y', '$.b[1]', 7);
UPDATE partial SET d = JSON_REMOVE(d, '$.b[0]');
SET SESSION binlog_row_value_options = '';
SET SESSION binlog_transaction_compression = ON;
INSERT INTO keyless WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < 60) SELECT n, 'z' FROM up;
SET SESSION binlog_transaction_compression = OFF;
SET SESSION gtid_next = 'AUTOMATIC:fuzz_tag';
INSERT INTO keyless VALUES (3, 't');
SET SESSION gtid_next = 'AUTOMATIC';
SET SESSION binlog_format = 'STATEMENT';
INSERT INTO keyless (a) VALUES (4);
SET SESSION binlog_format = 'ROW';
XA START 'x1', 'b', 7;
INSERT INTO keyless VALUES (5, 'xa');
XA END 'x1', 'b', 7;
XA PREPARE 'x1', 'b', 7;
XA COMMIT 'x1', 'b', 7;
START TRANSACTION;
INSERT INTO keyless VALUES (6, 's');
SAVEPOINT one;
INSERT INTO two_keys VALUES (6, 's', 6);
ROLLBACK TO SAVEPOINT one;
COMMIT;
ALTER TABLE keyless ADD COLUMN c DECIMAL(5,2) NOT NULL DEFAULT 1.5 COMMENT 'it''s; a /* comment */', ADD INDEX (a);
/* leading */ ALTER TABLE `fuzz`.`keyless` /*!80000 DROP INDEX a, */ RENAME COLUMN b TO `b``x`;
CREATE TABLE IF NOT EXISTS copied LIKE `two_keys`;
CREATE TABLE selected AS SELECT * FROM two_keys;
CREATE TEMPORARY TABLE passing (a INT);
RENAME TABLE copied TO copied2, selected TO copied, copied2 TO `sel.ected`;
ALTER TABLE copied RENAME TO renamed;
CREATE UNIQUE INDEX first ON renamed (a);
DROP INDEX first ON renamed;
TRUNCATE TABLE renamed;
CREATE TABLE parts (a INT PRIMARY KEY) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
ALTER TABLE parts TRUNCATE PARTITION p0;
ALTER TABLE parts DROP PARTITION p0;
DROP TABLE IF EXISTS renamed, `fuzz`.`sel.ected`, missing /* generated by someone */;
CREATE VIEW seen AS SELECT a FROM two_keys;
CREATE PROCEDURE doing() UPDATE two_keys SET c = 9 WHERE a = 8;
# a comment of the third kind
CREATE DATABASE /*!32312 IF NOT EXISTS*/ `odd``name`;
DROP DATABASE `odd``name`;
