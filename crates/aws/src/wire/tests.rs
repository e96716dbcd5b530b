use std::sync::Mutex;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::batch_read::{Item, Key};

/// Answers one request after the other as it was told, and keeps them.
struct Aws {
    config: SdkConfig,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What stands for an answer where the connection is closed instead.
const CLOSED: &str = "";

/// What an answer begins with that does not come at once, and after which time it comes.
const LATE: [(&str, Duration); 2] = [("brief ", Duration::from_millis(150)), ("slow ", SLOW_TIME)];
const SLOW_TIME: Duration = Duration::from_secs(1);

impl Aws {
    async fn answering(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        let answers = Arc::new(Mutex::new(answers.iter()));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, Arc::clone(&kept), Arc::clone(&answers)));
            }
        });
        let credentials =
            Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI", Some("a token".to_owned()), None, "test");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-north-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .endpoint_url(url)
            .build();
        Self { config, requests }
    }

    fn dynamodb(&self) -> DynamoDb {
        DynamoDb::new(&self.config)
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

type Answers = Arc<Mutex<std::slice::Iter<'static, &'static str>>>;

/// Answers what comes over a connection until it ends.
async fn answer(mut stream: tokio::net::TcpStream, requests: Arc<Mutex<Vec<String>>>, answers: Answers) {
    loop {
        let request = read(&mut stream).await;
        if request.is_empty() {
            break;
        }
        requests.lock().unwrap().push(request);
        let answer = *answers.lock().unwrap().next().unwrap();
        if answer == CLOSED {
            break;
        }
        let late = LATE.iter().find_map(|(begin, time)| Some((answer.strip_prefix(begin)?, *time)));
        let (answer, time) = late.unwrap_or((answer, Duration::ZERO));
        tokio::time::sleep(time).await;
        let (head, body) = answer.split_once("\n\n").unwrap();
        let length = body.len();
        let answer = format!("HTTP/1.1 {head}\ncontent-length: {length}\n\n").replace('\n', "\r\n") + body;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// A request with its body; nothing at the end of the connection.
async fn read(stream: &mut tokio::net::TcpStream) -> String {
    let mut request = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap_or_default();
        request.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        let Some((head, body)) = request.split_once("\r\n\r\n") else {
            if count == 0 {
                return String::new();
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return request;
        }
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn body(request: &str) -> serde_json::Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

async fn put(aws: &Aws) -> Result<Result<(), Item>, AwsError> {
    let item = serde_json::json!({ "pk": "a", "number": 7, "bytes": [1, 2], "absent": null });
    let condition = Some("attribute_not_exists(pk) OR number < :least");
    aws.dynamodb().put(Put { table: "t", item: &item, condition, values: &[(":least", 3)] }).await
}

const DONE: &str = "200 OK\n\n{}";
const BROKEN: &str = "500 Internal Server Error\n\n{\"__type\":\"com.amazonaws#InternalServerError\"}";

#[tokio::test]
async fn the_sdks_own_calls_go_the_same_way_and_are_tried_again() {
    let aws = Aws::answering(&[CLOSED, BROKEN, "200 OK\n\n{\"Item\":{\"pk\":{\"S\":\"a\"}}}"]).await;
    let config = aws.config.clone().into_builder().http_client(SdkTransport).build();
    let client = aws_sdk_dynamodb::Client::new(&config);
    let key = aws_sdk_dynamodb::types::AttributeValue::S("a".to_owned());
    let got = client.get_item().table_name("t").key("pk", key.clone()).send().await.unwrap();
    assert_eq!(got.item, Some(Item::from([("pk".to_owned(), key)])));
    let requests = aws.requests();
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert_eq!(header(&request, "x-amz-target"), Some("DynamoDB_20120810.GetItem"));
        assert!(header(&request, "authorization").unwrap().contains("SignedHeaders="), "{request}");
        assert!(aws.config.endpoint_url().unwrap().ends_with(header(&request, "host").unwrap()), "{request}");
    }
}

#[tokio::test]
async fn a_call_is_what_the_protocol_says() {
    let aws = Aws::answering(&[DONE]).await;
    assert_eq!(put(&aws).await.unwrap(), Ok(()));
    let request = &aws.requests()[0];
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(request, "x-amz-target"), Some("DynamoDB_20120810.PutItem"));
    assert_eq!(header(request, "content-type"), Some("application/x-amz-json-1.0"));
    assert_eq!(header(request, "x-amz-security-token"), Some("a token"));
    let authorization = header(request, "authorization").unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(authorization.contains("/eu-north-1/dynamodb/aws4_request, SignedHeaders="), "{authorization}");
    let expected = serde_json::json!({
        "TableName": "t",
        "Item": {
            "pk": { "S": "a" },
            "number": { "N": "7" },
            "bytes": { "L": [{ "N": "1" }, { "N": "2" }] },
            "absent": { "NULL": true },
        },
        "ConditionExpression": "attribute_not_exists(pk) OR number < :least",
        "ExpressionAttributeValues": { ":least": { "N": "3" } },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(body(request), expected);
}

#[tokio::test]
async fn what_stood_in_the_way_of_a_write_is_told() {
    let aws = Aws::answering(&[concat!(
        "400 Bad Request\n\n",
        r#"{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","#,
        r#""message":"The conditional request failed","Item":{"pk":{"S":"a"},"content":{"B":"AQI="}}}"#
    )])
    .await;
    let kept = put(&aws).await.unwrap().unwrap_err();
    assert_eq!(kept["pk"].as_s().unwrap(), "a");
    assert_eq!(kept["content"].as_b().unwrap().as_ref(), [1, 2]);
    assert_eq!(aws.requests().len(), 1);
}

#[derive(serde::Serialize)]
struct Numbered {
    number: usize,
    pk: &'static str,
}

/// Inserts so many items at once.
async fn insert(aws: &Aws, count: usize) -> Vec<Result<(), Item>> {
    let dynamodb = aws.dynamodb();
    let items: Vec<_> = (0..count).map(|number| Numbered { number, pk: "a" }).collect();
    let inserts = items.iter().map(|item| dynamodb.insert("t", item));
    futures::future::try_join_all(inserts).await.unwrap()
}

fn targets(aws: &Aws) -> Vec<String> {
    let target =
        |request: &String| header(request, "x-amz-target").unwrap().replace("DynamoDB_20120810.", "");
    aws.requests().iter().map(target).collect()
}

const ALL_THREE: &str = r#"200 OK

{"Responses":[{"TableName":"t"},{"TableName":"t"},{"TableName":"t"}]}"#;

#[tokio::test]
async fn items_that_come_together_are_inserted_together() {
    let aws = Aws::answering(&[ALL_THREE]).await;
    assert_eq!(insert(&aws, 3).await, vec![Ok(()); 3]);
    let request = &aws.requests()[0];
    assert_eq!(header(request, "x-amz-target"), Some("DynamoDB_20120810.BatchExecuteStatement"));
    let inserting = |number: &str| {
        serde_json::json!({
            "Statement": r#"INSERT INTO "t" VALUE {'number':?,'pk':?}"#,
            "Parameters": [{ "N": number }, { "S": "a" }],
        })
    };
    assert_eq!(body(request)["Statements"].as_array(), Some(&["0", "1", "2"].map(inserting).to_vec()));
}

#[tokio::test]
async fn an_item_that_comes_alone_is_put() {
    let aws = Aws::answering(&[DONE]).await;
    assert_eq!(insert(&aws, 1).await, [Ok(())]);
    let expected = serde_json::json!({
        "TableName": "t",
        "Item": { "pk": { "S": "a" }, "number": { "N": "0" } },
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(body(&aws.requests()[0]), expected);
}

#[tokio::test]
async fn what_is_refused_among_others_is_put_by_itself() {
    const FIRST_ALONE: &str = r#"200 OK

{"Responses":[{"TableName":"t"},{"Error":{"Code":"ThrottlingError"}},{"Error":{"Code":"DuplicateItem"}}]}"#;
    const IN_THE_WAY: &str = r#"400 Bad Request

{"__type":"com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException","Item":{"pk":{"S":"a"}}}"#;
    let aws = Aws::answering(&[FIRST_ALONE, IN_THE_WAY, IN_THE_WAY]).await;
    let inserted = insert(&aws, 3).await;
    assert_eq!(inserted[0], Ok(()));
    assert!(inserted[1..].iter().all(|item| item.as_ref().unwrap_err()["pk"].as_s().unwrap() == "a"));
    assert_eq!(targets(&aws), ["BatchExecuteStatement", "PutItem", "PutItem"]);
}

#[tokio::test]
async fn where_statements_are_refused_each_item_is_put_by_itself() {
    let aws =
        Aws::answering(&["400 Bad Request\n\n{\"__type\":\"AccessDeniedException\"}", DONE, DONE]).await;
    assert_eq!(insert(&aws, 2).await, [Ok(()), Ok(())]);
    assert_eq!(targets(&aws), ["BatchExecuteStatement", "PutItem", "PutItem"]);
}

#[tokio::test]
async fn an_answer_that_tells_of_fewer_items_inserted_no_others() {
    let aws = Aws::answering(&["200 OK\n\n{\"Responses\":[{}]}", DONE]).await;
    assert_eq!(insert(&aws, 2).await, [Ok(()), Ok(())]);
    assert_eq!(targets(&aws), ["BatchExecuteStatement", "PutItem"]);
}

#[tokio::test]
async fn a_lost_answer_to_many_leaves_the_answers_to_each() {
    let aws = Aws::answering(&[CLOSED, DONE, DONE]).await;
    assert_eq!(insert(&aws, 2).await, [Ok(()), Ok(())]);
    assert_eq!(targets(&aws), ["BatchExecuteStatement", "PutItem", "PutItem"]);
}

/// Inserts an item, and two more once its call has arrived; how long the last one takes.
async fn insert_one_then_two(aws: &Aws) -> Duration {
    let dynamodb = aws.dynamodb();
    let insert = async |number: usize| {
        let began = std::time::Instant::now();
        let item = Numbered { number, pk: "a" };
        assert_eq!(dynamodb.insert("t", &item).await.unwrap(), Ok(()));
        began.elapsed()
    };
    let two = async {
        while aws.requests.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        futures::future::join(insert(1), insert(2)).await.1
    };
    futures::future::join(insert(0), two).await.1
}

#[tokio::test]
async fn while_one_is_put_the_others_come_together() {
    let aws = Aws::answering(&["brief 200 OK\n\n{}", "200 OK\n\n{\"Responses\":[{},{}]}"]).await;
    insert_one_then_two(&aws).await;
    assert_eq!(targets(&aws), ["PutItem", "BatchExecuteStatement"]);
}

#[tokio::test]
async fn a_put_that_hangs_holds_up_the_others_only_so_long() {
    let aws = Aws::answering(&["slow 200 OK\n\n{}", DONE, DONE]).await;
    let last = insert_one_then_two(&aws).await;
    assert!(last < SLOW_TIME, "{last:?}");
    assert_eq!(targets(&aws), ["PutItem"; 3]);
}

#[tokio::test]
async fn an_update_is_what_its_builder_says() {
    let aws = Aws::answering(&["200 OK\n\n{\"Attributes\":{\"n\":{\"N\":\"8\"}}}"]).await;
    let dynamodb = aws.dynamodb();
    let key = Key { table: "t".to_owned(), pk: "a".to_owned(), sk: Some("b".to_owned()) };
    let update = dynamodb
        .update_item()
        .table_name("t")
        .set_key(Some(key.attributes()))
        .update_expression("SET #n = :n")
        .condition_expression("#n < :n")
        .expression_attribute_names("#n", "n")
        .expression_attribute_values(":n", aws_sdk_dynamodb::types::AttributeValue::N("8".to_owned()))
        .return_values(aws_sdk_dynamodb::types::ReturnValue::UpdatedNew)
        .return_values_on_condition_check_failure(
            aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld,
        );
    let updated = dynamodb.update(update).await.unwrap().unwrap();
    assert_eq!(updated["n"].as_n().unwrap(), "8");
    let expected = serde_json::json!({
        "TableName": "t",
        "Key": { "pk": { "S": "a" }, "sk": { "S": "b" } },
        "UpdateExpression": "SET #n = :n",
        "ConditionExpression": "#n < :n",
        "ExpressionAttributeNames": { "#n": "n" },
        "ExpressionAttributeValues": { ":n": { "N": "8" } },
        "ReturnValues": "UPDATED_NEW",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    });
    assert_eq!(body(&aws.requests()[0]), expected);
}

#[tokio::test]
async fn keys_that_were_left_out_are_asked_for_again() {
    let aws = Aws::answering(&[
        concat!(
            "200 OK\n\n",
            r#"{"Responses":{"t":[{"pk":{"S":"a"},"n":{"N":"1"}}]},"#,
            r#""UnprocessedKeys":{"t":{"Keys":[{"pk":{"S":"b"},"sk":{"S":"c"}}],"ConsistentRead":true}}}"#
        ),
        "200 OK\n\n{\"Responses\":{\"t\":[{\"pk\":{\"S\":\"b\"},\"sk\":{\"S\":\"c\"}}]},\"UnprocessedKeys\":{}}",
    ])
    .await;
    let key = |pk: &str, sk: Option<&str>| Key {
        table: "t".to_owned(),
        pk: pk.to_owned(),
        sk: sk.map(str::to_owned),
    };
    let keys = [key("a", None), key("b", Some("c")), key("absent", None)];
    let read = crate::batch_read::batch_read(&aws.dynamodb(), keys.clone()).await.unwrap();
    assert_eq!(read.len(), 2);
    assert!(read.contains_key(&keys[0]) && read.contains_key(&keys[1]));
    let requests = aws.requests();
    let asked =
        |keys| serde_json::json!({ "RequestItems": { "t": { "Keys": keys, "ConsistentRead": true } } });
    let b = serde_json::json!({ "pk": { "S": "b" }, "sk": { "S": "c" } });
    let all = serde_json::json!([{ "pk": { "S": "a" } }, { "pk": { "S": "absent" } }, b]);
    assert_eq!(body(&requests[0]), asked(all));
    assert_eq!(body(&requests[1]), asked(serde_json::json!([b])));
}

#[tokio::test]
async fn entries_of_a_batch_are_told_apart() {
    let aws = Aws::answering(&[concat!(
        "200 OK\n\n",
        r#"{"Successful":[{"Id":"1","MessageId":"m","MD5OfMessageBody":"x"}],"#,
        r#""Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}"#
    )])
    .await;
    let entry = |id: u8, delay_seconds| Entry {
        id: id.to_string(),
        message_body: "{}",
        message_group_id: "g",
        delay_seconds,
    };
    let sent = Sqs::new(&aws.config).send_batch("http://queue", &[entry(0, None), entry(1, Some(9))]).await;
    let sent = sent.unwrap();
    assert_eq!((sent.successful[0].id.as_str(), sent.failed.len()), ("1", 1));
    assert_eq!(sent.failed[0].code.as_deref(), Some("InternalError"));
    let request = &aws.requests()[0];
    assert_eq!(header(request, "x-amz-target"), Some("AmazonSQS.SendMessageBatch"));
    let expected = serde_json::json!({
        "QueueUrl": "http://queue",
        "Entries": [
            { "Id": "0", "MessageBody": "{}", "MessageGroupId": "g" },
            { "Id": "1", "MessageBody": "{}", "MessageGroupId": "g", "DelaySeconds": 9 },
        ],
    });
    assert_eq!(body(request), expected);
}

#[tokio::test]
async fn what_passes_is_asked_again() {
    for answers in [&[BROKEN, CLOSED, DONE], &[CLOSED, "503 Busy\n\n", DONE]] {
        let aws = Aws::answering(answers).await;
        assert_eq!(put(&aws).await.unwrap(), Ok(()));
        let requests = aws.requests();
        assert_eq!(requests.len(), 3);
        assert_eq!(body(&requests[0]), body(&requests[2]));
    }
}

#[tokio::test]
async fn in_the_end_the_error_is_told_by_its_name() {
    let aws = Aws::answering(&[BROKEN; 3]).await;
    let error = put(&aws).await.unwrap_err().to_string();
    assert_eq!(error, "dynamodb PutItem failed: InternalServerError (500): ");
    assert_eq!(aws.requests().len(), 3);
    let refused = "400 Bad Request\n\n{\"__type\":\"com.amazon.coral.validate#ValidationException\",\"Message\":\"No.\"}";
    let aws = Aws::answering(Box::leak(Box::new([refused]))).await;
    let error = put(&aws).await.unwrap_err();
    assert_eq!(error.to_string(), "dynamodb PutItem failed: ValidationException (400): No.");
    assert_eq!(aws.requests().len(), 1, "it would be refused again");
    assert!(!format!("{error:?} {:?}", aws.dynamodb()).contains("wJalrX"));
}

#[tokio::test]
async fn a_wrong_clock_is_put_right_once() {
    let refused =
        "403 Forbidden\ndate: Sat, 01 Jan 2050 00:00:00 GMT\n\n{\"__type\":\"InvalidSignatureException\"}";
    let aws = Aws::answering(Box::leak(Box::new([refused, DONE]))).await;
    assert_eq!(put(&aws).await.unwrap(), Ok(()));
    let requests = aws.requests();
    assert!(header(&requests[1], "x-amz-date").unwrap().starts_with("20500101T0000"));
    let aws = Aws::answering(Box::leak(Box::new([refused, refused]))).await;
    put(&aws).await.unwrap_err();
    assert_eq!(aws.requests().len(), 2, "the clock is not why");
}

#[test]
fn endpoints_are_those_of_the_sdk() {
    use super::{dynamodb, sqs};
    let uri = |service: &Service, region: &'static str, url: Option<&str>| {
        let mut config = SdkConfig::builder();
        config.set_region(Some(Region::from_static(region))).set_endpoint_url(url.map(str::to_owned));
        let config = config.build();
        Place::of(service, &config).unwrap().uri.to_string()
    };
    assert_eq!(uri(&dynamodb::SERVICE, "eu-north-1", None), "https://dynamodb.eu-north-1.amazonaws.com/");
    assert_eq!(uri(&sqs::SERVICE, "cn-north-1", None), "https://sqs.cn-north-1.amazonaws.com.cn/");
    assert_eq!(uri(&sqs::SERVICE, "us-gov-west-1", None), "https://sqs.us-gov-west-1.amazonaws.com/");
    assert_eq!(uri(&sqs::SERVICE, "eu-north-1", Some("http://localhost:4566")), "http://localhost:4566/");
    assert!(Place::of(&sqs::SERVICE, &SdkConfig::builder().build()).is_err());
}
