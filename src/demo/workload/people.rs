//! The rows that orders refer to: users, products and riders, as a pure function of their numbers.

use super::{
    order::{self, Sizes},
    sql_text::{Insert, SECOND, date, date_time, money, quoted, quoted_or_null},
};

/// Rows of one INSERT.
const ROWS: u64 = 500;
/// More than a day of business can sell.
const STOCK: u32 = 1_000_000;

const FAMILY: &[&str] =
    &["김", "이", "박", "최", "정", "강", "Smith", "O'Brien", "Müller", "Nguyễn"];
const GIVEN: &[&str] =
    &["민준", "서연", "도윤", "지우", "하은", "Ada", "Grace", "José", "Zoë", "Linh"];
const DISHES: &[&str] = &[
    "kitsune udon",
    "curry udon",
    "tempura udon",
    "냄비우동",
    "유부우동",
    "cold soba",
    "gyoza",
    "김밥",
];
const NEWS: &[Option<&str>] = &[None, Some(""), Some("mail"), Some("mail,push"), Some("sms,push")];

/// The statements that fill the three tables.
pub fn statements(sizes: Sizes) -> Vec<String> {
    let mut statements = Vec::new();
    for first in (1..=sizes.users).step_by(ROWS as usize) {
        let mut users =
            Insert::new("market.users", "id,name,email,birthday,news,token,points,joined_at");
        (first..(first + ROWS).min(sizes.users + 1)).for_each(|id| users.row(user(id)));
        users.append_to(&mut statements);
    }
    let mut products = Insert::new("market.products", "id,name,price,stock,weight_kg,since");
    (1..=sizes.products).for_each(|id| products.row(product(id)));
    products.append_to(&mut statements);
    let mut riders = Insert::new("delivery.riders", "id,name,vehicle,shift_starts,hired_on");
    (1..=sizes.riders).for_each(|id| riders.row(rider(id)));
    riders.append_to(&mut statements);
    statements
}

fn user(id: u64) -> String {
    let email = (!id.is_multiple_of(7)).then(|| format!("user{id}@example.org"));
    let birthday = (!id.is_multiple_of(5)).then(|| date(days(id * 37 % 20_000) - 9000));
    format!(
        "{id},{},{},{},{},X'{:016X}{:016x}',{},{}",
        quoted(&name(id)),
        quoted_or_null(email.as_deref()),
        birthday.as_deref().unwrap_or("NULL"),
        quoted_or_null(pick(NEWS, id).flatten()),
        id.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        // Ends in zero bytes now and then, as binary values do.
        id << 40,
        id % 100,
        date_time(order::ordered_at(0) - days(id % 900) * 86_400 * SECOND),
    )
}

fn product(id: u64) -> String {
    let weight = (!id.is_multiple_of(9)).then(|| format!("{:.3}", 0.05 + (id % 40) as f64 / 30.0));
    format!(
        "{id},{},{},{STOCK},{},{}",
        quoted(&format!("{} no. {id}", pick(DISHES, id).unwrap_or_default())),
        money(order::product_price(id)),
        weight.as_deref().unwrap_or("NULL"),
        1990 + id % 36,
    )
}

fn rider(id: u64) -> String {
    let vehicle = pick(&["bicycle", "scooter", "van"], id).unwrap_or_default();
    format!(
        "{id},{},'{vehicle}','{:02}:30:00',{}",
        quoted(&name(id * 3)),
        6 + id % 12,
        date(19_000 + days(id * 11 % 1500)),
    )
}

fn name(id: u64) -> String {
    let family = pick(FAMILY, id).unwrap_or_default();
    let given = pick(GIVEN, id / 3).unwrap_or_default();
    format!("{family} {given}")
}

fn pick<T: Copy>(choices: &[T], id: u64) -> Option<T> {
    choices.get(usize::try_from(id).ok()? % choices.len()).copied()
}

fn days(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(0)
}
