//! The databases of Udon Market, as SQL.

/// Counts databases of these names that somebody else made: they must not be dropped.
pub const STRANGERS: &str = "SELECT COUNT(*) FROM information_schema.schemata
    WHERE schema_name IN ('market', 'delivery') AND schema_name NOT IN (
        SELECT table_schema FROM information_schema.tables WHERE table_comment = 'made by binlake demo')";

/// Makes both databases anew. What an earlier demo left in them is gone.
pub const CREATE: &[&str] = &[
    "DROP DATABASE IF EXISTS market",
    "DROP DATABASE IF EXISTS delivery",
    "CREATE DATABASE market CHARACTER SET utf8mb4",
    "CREATE DATABASE delivery CHARACTER SET utf8mb4",
    "CREATE TABLE market.users (
        id INT NOT NULL PRIMARY KEY,
        name VARCHAR(60) NOT NULL,
        email VARCHAR(120) NULL,
        birthday DATE NULL,
        news SET('mail','sms','push') NULL,
        token BINARY(16) NOT NULL,
        points BIGINT NOT NULL,
        joined_at DATETIME NOT NULL) COMMENT 'made by binlake demo'",
    "CREATE TABLE market.products (
        id INT UNSIGNED NOT NULL PRIMARY KEY,
        name VARCHAR(80) NOT NULL,
        price DECIMAL(10,2) NOT NULL,
        stock INT NOT NULL,
        weight_kg FLOAT NULL,
        since YEAR NULL)",
    "CREATE TABLE market.orders (
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
        PRIMARY KEY (id))",
    "CREATE TABLE market.order_items (
        order_id BIGINT UNSIGNED NOT NULL,
        line_number SMALLINT NOT NULL,
        product_id INT UNSIGNED NOT NULL,
        quantity SMALLINT NOT NULL,
        price DECIMAL(10,2) NOT NULL,
        PRIMARY KEY (order_id, line_number))",
    "CREATE TABLE market.order_events (
        id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
        order_id BIGINT UNSIGNED NOT NULL,
        kind VARCHAR(16) NOT NULL,
        happened_at DATETIME(6) NOT NULL,
        detail JSON NULL,
        KEY (happened_at))",
    "CREATE TABLE market.user_events (
        id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
        user_id INT NOT NULL,
        kind ENUM('view','search','cart') NOT NULL,
        page VARCHAR(120) NULL,
        happened_at TIMESTAMP(3) NOT NULL,
        KEY (happened_at))",
    "CREATE TABLE delivery.riders (
        id INT NOT NULL PRIMARY KEY,
        name VARCHAR(60) NOT NULL,
        vehicle ENUM('bicycle','scooter','van') NOT NULL,
        shift_starts TIME NOT NULL,
        hired_on DATE NOT NULL) COMMENT 'made by binlake demo'",
    "CREATE TABLE delivery.deliveries (
        id BIGINT NOT NULL PRIMARY KEY,
        order_id BIGINT UNSIGNED NOT NULL,
        rider_id INT NOT NULL,
        picked_up_at DATETIME(3) NOT NULL,
        delivered_at DATETIME(3) NULL,
        distance_m MEDIUMINT UNSIGNED NOT NULL,
        tip DECIMAL(6,2) NULL)",
];

/// The change of schema in the middle of the day.
pub const ADD_COUPON: &str = "ALTER TABLE market.orders ADD COLUMN coupon VARCHAR(20) NULL";
