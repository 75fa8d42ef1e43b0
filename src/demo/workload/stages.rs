//! What happens to a batch of orders, stage by stage, as transactions of SQL. Pure: the same batch gives the same text.
//!
//! Any two batches touch different orders, and what they share (stock, points) they only add to or take from. So the
//! rows at the end do not depend on the order in which connections get their turns.

use std::collections::BTreeMap;

use super::{
    order::{Fate, Order},
    sql_text::{Insert, SECOND, date_time, id_list, money, quoted, quoted_or_null},
};

/// How many stages a batch goes through.
pub const STAGES: usize = 6;

/// A renumbered order gets this much added to its number.
const RENUMBERED: u64 = 1_000_000_000;
/// Orders that are rolled back have numbers from here on.
const NEVER_COMMITTED: u64 = 2_000_000_000;

/// Orders that are worked on together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its turn, from 0.
    pub index: u64,
    /// New orders, whose `fate_before` is `Created`.
    pub orders: Vec<Order>,
    /// Orders from before Binlake was started that go on now.
    pub aged: Vec<Order>,
    /// Whether `orders` has its column `coupon` by now.
    pub coupons: bool,
    /// The time of the batch in microseconds since 1970.
    pub now: i64,
}

/// What is committed or rolled back together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// In order.
    pub statements: Vec<String>,
    /// Whether it ends with ROLLBACK.
    pub rolled_back: bool,
}

/// Something that is written to `order_events`; its number is part of the event's id.
#[derive(Clone, Copy)]
enum Event {
    Created = 0,
    Paid = 1,
    Cancelled = 2,
    Shipped = 3,
    Done = 4,
    Renumbered = 5,
    Restored = 6,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Created => "created",
            Event::Paid => "paid",
            Event::Cancelled => "cancelled",
            Event::Shipped => "shipped",
            Event::Done => "done",
            Event::Renumbered => "renumbered",
            Event::Restored => "restored",
        }
    }
}

impl Batch {
    /// The transactions of one stage, in order.
    pub fn stage(&self, stage: usize) -> Vec<Transaction> {
        let mut transactions = match stage {
            0 => vec![self.browse(), self.refused(), self.place()],
            1 => vec![self.pay()],
            2 => vec![self.cancel(), self.delete_and_restore()],
            3 => vec![self.ship()],
            4 => vec![self.finish()],
            _ => vec![self.renumber(), self.renumber_lines()],
        };
        transactions.retain(|transaction| !transaction.statements.is_empty());
        transactions
    }

    /// The rows of orders that were placed, and got as far as `fate_before`, before Binlake was started.
    pub fn history(orders: &[Order]) -> Vec<Transaction> {
        let mut statements = Vec::new();
        insert_orders(orders, false, &mut statements);
        insert_items(orders, &mut statements);
        let mut events = EventInsert::new();
        for order in orders {
            let reached = |fate| order.fate_before >= fate;
            events.row(order, Event::Created, order.ordered_at);
            if reached(Fate::Paid) {
                events.row(order, Event::Paid, order.ordered_at + 60 * SECOND);
            }
            if reached(Fate::Shipped) {
                events.row(order, Event::Shipped, picked_up_at(order));
            }
            if reached(Fate::Done) {
                events.row(order, Event::Done, delivered_at(order));
            }
        }
        events.insert.append_to(&mut statements);
        let shipped = orders.iter().filter(|order| order.fate_before >= Fate::Shipped);
        insert_deliveries(shipped, Delivered::AsBefore, &mut statements);
        insert_browsing(orders, &mut statements);
        vec![committed(statements)]
    }

    /// Rows of `market.orders` alone.
    pub fn orders_only(orders: &[Order]) -> Vec<Transaction> {
        let mut statements = Vec::new();
        insert_orders(orders, false, &mut statements);
        vec![committed(statements)]
    }

    /// Orders that pass from below `fate` to it (and perhaps beyond) while Binlake runs.
    fn reaching(&self, fate: Fate) -> impl Iterator<Item = &Order> + Clone {
        self.orders.iter().chain(&self.aged).filter(move |order| {
            order.fate_before < fate && order.fate >= fate && order.fate != Fate::Cancelled
        })
    }

    fn browse(&self) -> Transaction {
        let mut statements = Vec::new();
        insert_browsing(&self.orders, &mut statements);
        committed(statements)
    }

    /// A payment that fails after everything was written: nothing of it may ever be seen.
    fn refused(&self) -> Transaction {
        let Some(order) = self.orders.first().filter(|_| self.index.is_multiple_of(3)) else {
            return committed(Vec::new());
        };
        let mut order = order.clone();
        order.id = NEVER_COMMITTED + self.index;
        let mut statements = vec!["UPDATE market.products SET stock = 0 WHERE id = 1".to_owned()];
        insert_orders(std::slice::from_ref(&order), self.coupons, &mut statements);
        insert_items(std::slice::from_ref(&order), &mut statements);
        Transaction { statements, rolled_back: true }
    }

    fn place(&self) -> Transaction {
        let mut statements = Vec::new();
        insert_orders(&self.orders, self.coupons, &mut statements);
        insert_items(&self.orders, &mut statements);
        if self.index % 3 == 1 {
            // Undone to a savepoint: a part of a transaction that nobody may see either.
            statements.push("SAVEPOINT before_gift".to_owned());
            statements.push(format!(
                "UPDATE market.orders SET is_gift = 1, price = 0 WHERE id IN ({})",
                id_list(self.orders.iter().map(|order| order.id))
            ));
            statements.push("ROLLBACK TO SAVEPOINT before_gift".to_owned());
        }
        insert_events(self.orders.iter(), Event::Created, self.now, &mut statements);
        let mut sold: BTreeMap<u64, u64> = BTreeMap::new();
        for item in self.orders.iter().flat_map(|order| &order.items) {
            *sold.entry(item.product).or_default() += item.quantity;
        }
        statements.extend(update_by_id("market.products", "stock = stock -", &sold));
        committed(statements)
    }

    fn pay(&self) -> Transaction {
        let mut statements = self.set_status(Fate::Paid, "paid");
        insert_events(self.reaching(Fate::Paid), Event::Paid, self.now, &mut statements);
        let mut points: BTreeMap<u64, u64> = BTreeMap::new();
        for order in self.reaching(Fate::Paid) {
            *points.entry(order.user).or_default() += order.price() / 1000;
        }
        statements.extend(update_by_id("market.users", "points = points +", &points));
        committed(statements)
    }

    fn cancel(&self) -> Transaction {
        let all = self.orders.iter().chain(&self.aged);
        let cancelled = all.filter(|order| order.fate == Fate::Cancelled);
        if cancelled.clone().next().is_none() {
            return committed(Vec::new());
        }
        let ids = id_list(cancelled.clone().map(|order| order.id));
        let mut statements = vec![
            format!("DELETE FROM market.order_items WHERE order_id IN ({ids})"),
            format!("DELETE FROM market.orders WHERE id IN ({ids})"),
        ];
        insert_events(cancelled, Event::Cancelled, self.now, &mut statements);
        committed(statements)
    }

    /// A row deleted and written again, with its key, in one transaction.
    fn delete_and_restore(&self) -> Transaction {
        let created = |order: &&Order| order.fate == Fate::Created;
        let Some(order) = self.orders.iter().find(created) else { return committed(Vec::new()) };
        let mut order = order.clone();
        order.memo = Some("called off, then ordered again");
        let mut statements = vec![format!("DELETE FROM market.orders WHERE id = {}", order.id)];
        insert_orders(std::slice::from_ref(&order), self.coupons, &mut statements);
        insert_events([&order].into_iter(), Event::Restored, self.now, &mut statements);
        committed(statements)
    }

    /// One transaction over both databases.
    fn ship(&self) -> Transaction {
        let mut statements = self.set_status(Fate::Shipped, "shipped");
        insert_events(self.reaching(Fate::Shipped), Event::Shipped, self.now, &mut statements);
        insert_deliveries(self.reaching(Fate::Shipped), Delivered::NotYet, &mut statements);
        committed(statements)
    }

    fn finish(&self) -> Transaction {
        let mut statements = self.set_status(Fate::Done, "done");
        insert_events(self.reaching(Fate::Done), Event::Done, self.now, &mut statements);
        let mut cases = String::new();
        for order in self.reaching(Fate::Done) {
            cases.push_str(&format!(" WHEN {} THEN {}", order.id, date_time(delivered_at(order))));
        }
        if !cases.is_empty() {
            let ids = id_list(self.reaching(Fate::Done).map(|order| order.id));
            statements.push(format!(
                "UPDATE delivery.deliveries SET delivered_at = CASE id{cases} END WHERE id IN ({ids})"
            ));
        }
        committed(statements)
    }

    fn set_status(&self, fate: Fate, status: &str) -> Vec<String> {
        let mut orders = self.reaching(fate).peekable();
        if orders.peek().is_none() {
            return Vec::new();
        }
        let (ids, now) = (id_list(orders.map(|order| order.id)), date_time(self.now));
        vec![format!(
            "UPDATE market.orders SET status = '{status}', updated_at = {now} WHERE id IN ({ids})"
        )]
    }

    /// A primary key that changes, with what refers to it.
    fn renumber(&self) -> Transaction {
        let done = |order: &&Order| order.fate == Fate::Done;
        let order = self.orders.iter().rev().find(done);
        let Some(order) = order.filter(|_| self.index.is_multiple_of(4)) else {
            return committed(Vec::new());
        };
        let (id, new) = (order.id, order.id + RENUMBERED);
        let mut statements = vec![
            format!("UPDATE market.orders SET id = {new} WHERE id = {id}"),
            format!("UPDATE market.order_items SET order_id = {new} WHERE order_id = {id}"),
            format!("UPDATE delivery.deliveries SET order_id = {new} WHERE id = {id}"),
        ];
        insert_events([order].into_iter(), Event::Renumbered, self.now, &mut statements);
        committed(statements)
    }

    /// A part of a composite key that changes.
    fn renumber_lines(&self) -> Transaction {
        let Some(order) = self.orders.first().filter(|_| self.index % 4 == 1) else {
            return committed(Vec::new());
        };
        committed(vec![format!(
            "UPDATE market.order_items SET line_number = line_number + 10 WHERE order_id = {}",
            order.id
        )])
    }
}

fn committed(statements: Vec<String>) -> Transaction {
    Transaction { statements, rolled_back: false }
}

fn insert_orders(orders: &[Order], coupons: bool, statements: &mut Vec<String>) {
    let coupon_column = if coupons { ",coupon" } else { "" };
    let columns = format!(
        "id,user_id,status,price,qty,memo,address,ordered_at,updated_at,meta,is_gift,ratio{coupon_column}"
    );
    let mut insert = Insert::new("market.orders", &columns);
    for order in orders {
        let status = match order.fate_before {
            Fate::Created | Fate::Cancelled => "created",
            Fate::Paid => "paid",
            Fate::Shipped => "shipped",
            Fate::Done => "done",
        };
        let coupon = match coupons {
            true => format!(",{}", quoted_or_null(order.coupon)),
            false => String::new(),
        };
        insert.row(format_args!(
            "{},{},'{status}',{},{},{},{},{},{},{},{},{}{coupon}",
            order.id,
            order.user,
            money(order.price()),
            order.quantity(),
            quoted_or_null(order.memo),
            quoted_or_null(order.address.as_deref()),
            date_time(order.ordered_at),
            // MySQL rounds to the TIMESTAMP's whole seconds.
            date_time(order.ordered_at),
            quoted_or_null(order.meta.as_deref()),
            order.is_gift.map_or("NULL".to_owned(), |value| value.to_string()),
            order.ratio,
        ));
    }
    insert.append_to(statements);
}

fn insert_items(orders: &[Order], statements: &mut Vec<String>) {
    let columns = "order_id,line_number,product_id,quantity,price";
    let mut insert = Insert::new("market.order_items", columns);
    for order in orders {
        for (item, line) in order.items.iter().zip(1..) {
            let (id, product, quantity) = (order.id, item.product, item.quantity);
            insert.row(format_args!("{id},{line},{product},{quantity},{}", money(item.price)));
        }
    }
    insert.append_to(statements);
}

struct EventInsert {
    insert: Insert,
}

impl EventInsert {
    fn new() -> EventInsert {
        let columns = "id,order_id,kind,happened_at,detail";
        EventInsert { insert: Insert::new("market.order_events", columns) }
    }

    fn row(&mut self, order: &Order, event: Event, at: i64) {
        let detail = match event {
            Event::Created => quoted(&format!(r#"{{"lines":{}}}"#, order.items.len())),
            Event::Shipped => quoted(&format!(r#"{{"rider":{}}}"#, order.rider)),
            _ => "NULL".to_owned(),
        };
        self.insert.row(format_args!(
            "{},{},'{}',{},{detail}",
            order.id * 16 + event as u64,
            order.id,
            event.name(),
            date_time(at),
        ));
    }
}

fn insert_events<'a>(
    orders: impl Iterator<Item = &'a Order>,
    event: Event,
    at: i64,
    statements: &mut Vec<String>,
) {
    let mut events = EventInsert::new();
    orders.for_each(|order| events.row(order, event, at));
    events.insert.append_to(statements);
}

/// Whether a delivery that is written has reached its door.
#[derive(Clone, Copy)]
enum Delivered {
    NotYet,
    AsBefore,
}

fn insert_deliveries<'a>(
    orders: impl Iterator<Item = &'a Order>,
    delivered: Delivered,
    statements: &mut Vec<String>,
) {
    let columns = "id,order_id,rider_id,picked_up_at,delivered_at,distance_m,tip";
    let mut insert = Insert::new("delivery.deliveries", columns);
    for order in orders {
        let at = match (delivered, order.fate_before) {
            (Delivered::AsBefore, Fate::Done) => date_time(delivered_at(order)),
            _ => "NULL".to_owned(),
        };
        insert.row(format_args!(
            "{0},{0},{1},{2},{at},{3},{4}",
            order.id,
            order.rider,
            date_time(picked_up_at(order)),
            order.distance_m,
            order.tip.map_or("NULL".to_owned(), money),
        ));
    }
    insert.append_to(statements);
}

fn insert_browsing(orders: &[Order], statements: &mut Vec<String>) {
    let mut insert = Insert::new("market.user_events", "id,user_id,kind,page,happened_at");
    for order in orders {
        let at = order.ordered_at;
        insert.row(format_args!(
            "{},{},'search',{},{}",
            order.id * 4,
            order.user,
            quoted_or_null(order.memo.map(|_| "/search?q=우동")),
            date_time(at - 90 * SECOND)
        ));
        for (item, number) in order.items.iter().zip(1..=2u64) {
            let kind = if number == 1 { "view" } else { "cart" };
            insert.row(format_args!(
                "{},{},'{kind}','/product/{}',{}",
                order.id * 4 + number,
                order.user,
                item.product,
                date_time(at - 30 * SECOND)
            ));
        }
    }
    insert.append_to(statements);
}

/// One UPDATE that adds to (or takes from) many rows, each its own amount, in the order of their ids.
fn update_by_id(table: &str, set: &str, amounts: &BTreeMap<u64, u64>) -> Option<String> {
    if amounts.is_empty() {
        return None;
    }
    let cases: String =
        amounts.iter().map(|(id, amount)| format!(" WHEN {id} THEN {amount}")).collect();
    let ids = id_list(amounts.keys().copied());
    Some(format!("UPDATE {table} SET {set} CASE id{cases} END WHERE id IN ({ids})"))
}

fn picked_up_at(order: &Order) -> i64 {
    order.ordered_at + order.wait_seconds * SECOND
}

fn delivered_at(order: &Order) -> i64 {
    picked_up_at(order) + order.ride_seconds * SECOND
}
