//! `inbox`: keeps what is sent to an inbox, and answers as the inbox was told. It has no keys and calls nobody.

mod receive;

use carillon_aws::environment::setting;
use carillon_aws::inboxes::InboxTable;
use carillon_aws::{DynamoDb, sdk_config};
use lambda_http::{Error, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let table = InboxTable::new(DynamoDb::new(&sdk_config().await), setting("INBOXES_TABLE")?);
    let table = &table;
    lambda_http::run(service_fn(async |request| Ok::<_, Error>(receive::receive(table, &request).await)))
        .await
}
