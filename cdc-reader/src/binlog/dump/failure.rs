//! What the reader makes of the end of the replication connection.

use crate::{
    config::SourceConfig,
    error::ReaderError,
    mysql::{connect::place, wire::failure::WireFailure},
};

/// From the first command on.
pub(super) fn streaming(failure: WireFailure, config: &SourceConfig) -> ReaderError {
    let server_place = place(config);
    if let WireFailure::Server { code: 1236, message, .. } = &failure {
        // 1236 is the server's answer to every request that it cannot or will no longer serve.
        if message.contains("server_uuid/server_id") {
            return ReaderError::Transient {
                place: server_place,
                reason: "another replica uses the same server_id or UUID; set another `server_id` for this source"
                    .into(),
            };
        }
        return ReaderError::PositionLost(format!(
            "MySQL at {server_place} cannot serve the binlog from the stored position ({message}); start with a \
             new change log and lake folder to take a new snapshot"
        ));
    }
    failure.classified(&server_place)
}
