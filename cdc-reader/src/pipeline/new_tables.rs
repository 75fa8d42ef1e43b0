//! Another set of tables to capture, while the stream is followed: looked up on the server, and handed to the encode
//! thread, which takes it over between two transactions.

use std::{sync::Arc, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::PAUSE_MAX;
use crate::{
    config::SourceConfig,
    error::ReaderError,
    flow::{Input, InputSender, Order, TablesOrder},
    mysql::{
        catalog::{self, Catalog},
        connect::{place, reconnect, server},
    },
    table_filter::TableFilter,
};

/// Tells the encode thread when other tables are to be captured.
pub(super) async fn follow(
    config: Arc<SourceConfig>,
    mut tables: watch::Receiver<Vec<String>>,
    inbox: InputSender,
    stop: CancellationToken,
) {
    let work = async {
        while tables.changed().await.is_ok() {
            let patterns = tables.borrow_and_update().clone();
            let filter = match TableFilter::new(&patterns) {
                Ok(filter) => filter,
                Err(reason) => {
                    error!(source = %config.name, %reason, "`tables` stays as it was");
                    continue;
                }
            };
            info!(source = %config.name, ?patterns, "other tables are to be captured");
            // A table that is made between the catalog's answer and the encode thread's change is found the second time.
            for _ in 0..2 {
                let catalog = listed(&config, &filter).await;
                let (taken, answer) = oneshot::channel();
                let order = TablesOrder { filter: filter.clone(), catalog, taken };
                if inbox.send(Input::Order(Order::Tables(order))).await.is_err() {
                    return;
                }
                // Without an answer the attempt is about to end; the next one begins with the new tables.
                let _ = answer.await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// The tables of a filter, as the server has them once it answers.
async fn listed(config: &SourceConfig, filter: &TableFilter) -> Catalog {
    let mut pause = Duration::from_secs(1);
    loop {
        let asked = async {
            let mut connection = reconnect(config).await?;
            let server = server(&mut connection, &place(config)).await?;
            let catalog = catalog::load(&mut connection, &server, &config.name, filter).await?;
            let _ = connection.disconnect().await;
            Ok::<_, ReaderError>(catalog)
        };
        match asked.await {
            Ok(catalog) => return catalog,
            Err(error) => {
                warn!(source = %config.name, %error, "the tables cannot be listed, trying again");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
