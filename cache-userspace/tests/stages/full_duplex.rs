//! Content that goes up while the answer comes down: neither may wait for the other where the origin does not make
//! it wait.

use crate::simulated::{End, Node, Origin, ok, settled};

#[tokio::test]
async fn placeholder() {
    let _ = (End::Closed, ok("", ""), Origin::new().await);
    settled().await;
    let _ = Node::before;
}
