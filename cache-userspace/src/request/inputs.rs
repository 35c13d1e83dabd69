//! What of a request a mesh may send it elsewhere by: answers count only for requests that are the same in it (MESH.md S5).

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::http1::RequestHead;
use crate::identify::Workload;
use crate::kube::index::Input;
use crate::policy::no_vary_search::path_and_query;

/// These parts of a request, told from all others; empty where there are none.
pub(super) fn digest(inputs: &BTreeSet<Input>, request: &RequestHead, workload: &Workload) -> Vec<u8> {
    if inputs.is_empty() {
        return Vec::new();
    }
    let mut digest = Sha256::new();
    let mut update = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    for input in inputs {
        match input {
            Input::Method => update(&request.method),
            Input::Query => update(path_and_query(&request.target).1),
            Input::Pod => update(&workload.id.to_be_bytes()),
            Input::Field(name) => {
                let lines: Vec<&[u8]> = request.fields.values(name).collect();
                update(&(lines.len() as u64).to_be_bytes());
                lines.into_iter().for_each(&mut update);
            }
        }
    }
    digest.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::accept::netns::Netns;
    use crate::http1::head::Parsed;

    fn of(inputs: &[Input], line: &str, fields: &str, pod: u64) -> Vec<u8> {
        let text = format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let Parsed::Complete(request) = RequestHead::take(&mut BytesMut::from(text.as_str()), &mut 0, 8192)
        else {
            panic!("{text}");
        };
        let workload = Workload::new("a".into(), ["shop".into(), "web".into()], pod, (Netns::Own, 7), 1);
        digest(&inputs.iter().cloned().collect(), &request, &workload)
    }

    #[test]
    fn requests_are_the_same_where_nothing_else_tells_them_apart() {
        assert_eq!(of(&[], "GET /a?b", "X-A: 1\r\n", 1), of(&[], "HEAD /b", "", 2));
        let field = [Input::Field("x-a".to_owned())];
        let expected = of(&field, "GET /", "X-A: 1\r\n", 1);
        assert_eq!(of(&field, "HEAD /b?c", "x-b: 2\r\nx-A: 1\r\n", 2), expected);
        for other in ["", "X-A:\r\n", "X-A: 2\r\n", "X-A: 1\r\nX-A: 1\r\n"] {
            assert_ne!(of(&field, "GET /", other, 1), expected, "{other}");
        }
    }

    #[test]
    fn each_input_tells_requests_apart() {
        let differs = |input: Input, line: &str, pod: u64| {
            let inputs = [input];
            of(&inputs, "GET /a?b=1", "", 1) != of(&inputs, line, "", pod)
        };
        assert!(differs(Input::Method, "HEAD /a?b=1", 1) && !differs(Input::Method, "GET /b", 2));
        assert!(differs(Input::Query, "GET /a?b=2", 1) && !differs(Input::Query, "HEAD /b?b=1", 2));
        assert!(differs(Input::Pod, "GET /a?b=1", 2) && !differs(Input::Pod, "HEAD /b", 1));
    }
}
