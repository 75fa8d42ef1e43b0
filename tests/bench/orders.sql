-- The table of the benchmarks, 12 columns of all the types that are hot in practice, and procedures that fill it:
-- `fill(first, rows)` in statements and transactions of 500 rows, `fill_at_once(first, rows)` in one statement.
-- Values come from the row's number, so every run reads the same bytes.
DROP DATABASE IF EXISTS bench;
CREATE DATABASE bench;
USE bench;
CREATE TABLE orders (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  user_id INT NOT NULL,
  status ENUM('created','paid','shipped','done') DEFAULT NULL,
  price DECIMAL(12,2) NOT NULL,
  qty SMALLINT DEFAULT NULL,
  memo VARCHAR(200) DEFAULT NULL,
  address TEXT,
  ordered_at DATETIME(6) DEFAULT NULL,
  updated_at TIMESTAMP NULL DEFAULT NULL,
  meta JSON DEFAULT NULL,
  is_gift TINYINT(1) DEFAULT NULL,
  ratio DOUBLE DEFAULT NULL,
  PRIMARY KEY (id)
) DEFAULT CHARSET = utf8mb4;

SET sql_log_bin = 0;
CREATE TABLE numbers (n INT UNSIGNED PRIMARY KEY);
INSERT INTO numbers
  WITH RECURSIVE up (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM up WHERE n < 499) SELECT n FROM up;
SET sql_log_bin = 1;

DELIMITER //
CREATE PROCEDURE fill_at_once(first BIGINT UNSIGNED, rows_wanted INT UNSIGNED)
  INSERT INTO orders
    SELECT id, r % 100000, ELT(r % 4 + 1, 'created', 'paid', 'shipped', 'done'), (s % 10000000) / 100, r % 10,
      CONCAT('memo ', id, ' udon market ', s % 1073741824),
      CONCAT('Seoul Gangnam-gu Teheran-ro ', r % 500, ', apt ', s % 2000),
      TIMESTAMP '2026-01-01 00:00:00' + INTERVAL r * 563 MICROSECOND,
      TIMESTAMP '2026-02-01 03:04:05' + INTERVAL s % 28 DAY,
      JSON_OBJECT('a', id, 'b', JSON_ARRAY(1, 2, id % 7)), id % 2, r / 4294967296
    FROM (
      SELECT first + nth AS id, CRC32(first + nth) AS r, CRC32(CONCAT('s', first + nth)) AS s
      FROM (
        SELECT a.n * 250000 + b.n * 500 + c.n AS nth
        FROM numbers a JOIN numbers b ON b.n * 500 < rows_wanted JOIN numbers c ON c.n < rows_wanted
        WHERE a.n * 250000 < rows_wanted
      ) counted
      WHERE nth < rows_wanted
    ) numbered //
CREATE PROCEDURE fill(first BIGINT UNSIGNED, rows_wanted BIGINT UNSIGNED)
BEGIN
  DECLARE done BIGINT UNSIGNED DEFAULT 0;
  WHILE done < rows_wanted DO
    CALL fill_at_once(first + done, LEAST(500, rows_wanted - done));
    SET done = done + 500;
  END WHILE;
END //
DELIMITER ;
