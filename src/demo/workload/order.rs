//! Everything about one order as a pure function of the seed and its number: so two runs with one seed write the same
//! rows, whatever connection gets there first.

use fastrand::Rng;

use super::sql_text::SECOND;

/// 2026-01-01 00:00:00 UTC in microseconds since 1970; order 0 would have been placed then.
const OPENING: i64 = 1_767_225_600 * SECOND;
/// The time between two orders: at the default size the demo spans two days, at 100,000 orders five weeks.
const BETWEEN_ORDERS: i64 = 30 * SECOND;

const MEMOS: &[&str] = &[
    "문 앞에 놓아 주세요",
    "leave it at the door",
    "it's a gift, no receipt",
    "고수는 빼 주세요 🌿",
    "ring twice",
    "2 \\ 3 chopsticks",
    "お箸は要りません",
    "경비실에 맡겨 주세요",
];
const STREETS: &[&str] =
    &["강남대로", "테헤란로", "올림픽로", "세종대로", "성수이로", "월드컵북로", "한강대로"];
const COUPONS: &[&str] = &["WELCOME", "UDON-10", "첫주문", "FREE-SHIP"];

/// How far an order gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Never paid.
    Created,
    /// Paid, not picked up yet.
    Paid,
    /// On its way.
    Shipped,
    /// Delivered.
    Done,
    /// Called off: its rows are deleted.
    Cancelled,
}

/// One line of an order.
#[derive(Clone, Copy, Debug)]
pub struct Item {
    /// Which product.
    pub product: u64,
    /// How many.
    pub quantity: u64,
    /// What one costs, in hundredths.
    pub price: u64,
}

/// An order with everything that will happen to it.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its number.
    pub id: u64,
    /// Who ordered.
    pub user: u64,
    /// Its lines; no product twice.
    pub items: Vec<Item>,
    /// What the customer wrote.
    pub memo: Option<&'static str>,
    /// Where to.
    pub address: Option<String>,
    /// When, in microseconds since 1970.
    pub ordered_at: i64,
    /// JSON.
    pub meta: Option<String>,
    /// 0 or 1.
    pub is_gift: Option<u8>,
    /// Some number that needs all digits of a DOUBLE.
    pub ratio: f64,
    /// Its coupon, once there are coupons.
    pub coupon: Option<&'static str>,
    /// How far it gets.
    pub fate: Fate,
    /// How far it had got when Binlake started, if it was placed before.
    pub fate_before: Fate,
    /// Who delivers it.
    pub rider: u64,
    /// How far that is.
    pub distance_m: u64,
    /// The tip in hundredths.
    pub tip: Option<u64>,
    /// Order to pick-up.
    pub wait_seconds: i64,
    /// Pick-up to door.
    pub ride_seconds: i64,
}

/// How many there are of what orders refer to.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `market.users`.
    pub users: u64,
    /// `market.products`.
    pub products: u64,
    /// `delivery.riders`.
    pub riders: u64,
}

impl Sizes {
    /// Fitting a number of orders.
    pub fn for_orders(orders: u64) -> Sizes {
        Sizes { users: (orders / 10).clamp(50, 10_000), products: 200, riders: 25 }
    }
}

/// When an order is placed, in microseconds since 1970.
pub fn ordered_at(id: u64) -> i64 {
    OPENING + i64::try_from(id).unwrap_or(0) * BETWEEN_ORDERS
}

impl Order {
    /// The order of this number in the world of this seed.
    pub fn generate(seed: u64, id: u64, sizes: Sizes) -> Order {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ id);
        let items = items(&mut rng, sizes.products);
        let fate = match rng.u8(0..100) {
            0..5 => Fate::Cancelled,
            5..9 => Fate::Created,
            9..14 => Fate::Paid,
            14..22 => Fate::Shipped,
            _ => Fate::Done,
        };
        let fate_before = match (fate, rng.u8(0..100)) {
            // Most old orders were finished long ago; some change under the snapshot's hands.
            (Fate::Cancelled, _) => Fate::Paid,
            (_, 0..8) => Fate::Created.min(fate),
            (_, 8..16) => Fate::Paid.min(fate),
            (_, 16..24) => Fate::Shipped.min(fate),
            _ => fate,
        };
        Order {
            id,
            user: rng.u64(1..=sizes.users),
            memo: rng.choice(MEMOS).copied().filter(|_| !id.is_multiple_of(3)),
            address: (rng.u8(0..20) > 0).then(|| address(&mut rng)),
            ordered_at: ordered_at(id) + rng.i64(0..BETWEEN_ORDERS),
            meta: (rng.u8(0..10) > 0).then(|| meta(&mut rng, id)),
            is_gift: (rng.u8(0..10) > 0).then(|| rng.u8(0..2)),
            ratio: rng.f64(),
            coupon: rng.choice(COUPONS).copied().filter(|_| id.is_multiple_of(4)),
            fate,
            fate_before,
            rider: rng.u64(1..=sizes.riders),
            distance_m: rng.u64(300..12_000),
            tip: (rng.u8(0..3) == 0).then(|| rng.u64(1..20) * 50),
            wait_seconds: rng.i64(240..1200),
            ride_seconds: rng.i64(300..2400),
            items,
        }
    }

    /// The sum of its lines, in hundredths.
    pub fn price(&self) -> u64 {
        self.items.iter().map(|item| item.quantity * item.price).sum()
    }

    /// The number of things in it.
    pub fn quantity(&self) -> u64 {
        self.items.iter().map(|item| item.quantity).sum()
    }
}

/// A product's price in hundredths; the same in every order.
pub fn product_price(product: u64) -> u64 {
    250 + product * 7919 % 4000
}

fn items(rng: &mut Rng, products: u64) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..rng.usize(1..=4) {
        // The square makes low numbers the best-sellers: their stock is updated all day long.
        let product = 1 + rng.u64(0..products) * rng.u64(0..products) / products;
        if items.iter().all(|item| item.product != product) {
            let price = product_price(product);
            items.push(Item { product, quantity: rng.u64(1..=3), price });
        }
    }
    items
}

fn address(rng: &mut Rng) -> String {
    let street = rng.choice(STREETS).copied().unwrap_or_default();
    format!("서울 {street} {}, {}동 {}호", rng.u32(1..600), rng.u32(101..130), rng.u32(101..2500))
}

fn meta(rng: &mut Rng, id: u64) -> String {
    let device = rng.choice(["ios", "android", "web"]).unwrap_or("web");
    format!(
        r#"{{"device":"{device}","visits":[{},{},{}],"score":{:.3},"campaign":{}}}"#,
        rng.u8(..),
        rng.u16(..),
        id,
        rng.f64() * 10.0,
        if rng.bool() { "null" } else { r#"{"name":"겨울 우동","rank":3}"# },
    )
}
