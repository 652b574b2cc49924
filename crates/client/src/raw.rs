//! Any path of the API, with its JSON as it stands: for what has no type of its own here.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use crate::Error;
use crate::client::{Client, read_json, send, success};

impl Client {
    /// GETs a path such as `api/v1/status`.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Box<RawValue>, Error> {
        let request = self.request(Method::GET, self.url(path, query)?).await?;
        read_json(success(send(request).await?).await?).await
    }

    /// POSTs a body of some content type to a path.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Box<RawValue>, Error> {
        let request = self.request(Method::POST, self.url(path, &[])?).await?;
        let request = request.header(CONTENT_TYPE, content_type).body(body);
        read_json(success(send(request).await?).await?).await
    }

    /// The same for what the server keeps once however often it comes, as alarms and entities: tried again after a
    /// failure that may pass, as a publish with a key is.
    pub async fn post_repeatable(
        &self,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Box<RawValue>, Error> {
        let attempt = || async {
            let request = self.request(Method::POST, self.url(path, &[])?).await?;
            let request = request
                .timeout(self.timeout())
                .header(CONTENT_TYPE, content_type)
                .body(body.clone());
            read_json(success(send(request).await?).await?).await
        };
        self.try_again(true, attempt).await
    }
}
