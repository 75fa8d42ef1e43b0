//! What Udon Market asks its lake at the end of the demo.

/// A question and the SQL that answers it.
pub struct Question {
    /// As somebody in the shop would put it.
    pub text: &'static str,
    /// Over the lake.
    pub sql: &'static str,
}

/// The three questions.
pub const QUESTIONS: &[Question] = &[
    Question {
        text: "How was business, day by day?  (market.orders)",
        sql: "SELECT CAST(ordered_at AS DATE) AS day, COUNT(*) AS orders, SUM(price) AS revenue,
                 SUM(CASE WHEN status = 'done' THEN 1 ELSE 0 END) AS delivered,
                 COUNT(coupon) AS with_coupon
             FROM udon.market.orders
             GROUP BY CAST(ordered_at AS DATE) ORDER BY day DESC LIMIT 7",
    },
    Question {
        text: "Which riders are fastest?  (delivery.deliveries and riders, with market.orders of another database)",
        sql: "SELECT r.name, r.vehicle, COUNT(*) AS deliveries,
                 ROUND(AVG(date_part('epoch', d.delivered_at) - date_part('epoch', o.ordered_at)) / 60, 1)
                     AS minutes_to_the_door,
                 SUM(d.tip) AS tips
             FROM udon.delivery.deliveries d
             JOIN udon.delivery.riders r ON r.id = d.rider_id
             JOIN udon.market.orders o ON o.id = d.order_id
             WHERE d.delivered_at IS NOT NULL
             GROUP BY r.name, r.vehicle ORDER BY minutes_to_the_door LIMIT 5",
    },
    Question {
        text: "What became of an order that is no longer in MySQL?  (market.order_events, a history table)",
        sql: "SELECT e.order_id, e.kind, e.happened_at
             FROM udon.market.order_events e
             WHERE e.order_id = (SELECT MAX(c.order_id) FROM udon.market.order_events c
                 WHERE c.kind = 'cancelled')
             ORDER BY e.happened_at, e.id",
    },
];
