//! Any endpoint, called by its path.

use rdmfs::repository::AnyCall;
use serde_json::json;

use crate::server::{Server, document, unique};

fn call(method: &str, path: &str) -> AnyCall {
    AnyCall {
        method: method.into(),
        path: path.into(),
        ..AnyCall::default()
    }
}

fn any_endpoint_is_called_with_the_token(server: &Server) {
    let me = server.owner.call(&call("GET", "me")).unwrap();
    assert!(me.is_success() && me.json().unwrap()["id"].is_number());
    assert_eq!(server.guest.call(&call("GET", "/api/me")).unwrap().status, 401);
    let mut create = call("POST", "records");
    create.body = Some(document("By any call").to_string().into());
    let made = server.owner.call(&create).unwrap();
    assert_eq!(made.status, 201);
    let id = made.json().unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("records/{id}/draft");
    let mut link = call("POST", &format!("records/{id}/access/links"));
    link.body = Some(json!({"permission": "view"}).to_string().into());
    let made = server.owner.call(&link).unwrap().json().unwrap();
    let mut patch = call(
        "PATCH",
        &format!("records/{id}/access/links/{}", made["id"].as_str().unwrap()),
    );
    patch.body = Some(json!({"permission": "edit"}).to_string().into());
    let patched = server.owner.call(&patch).unwrap();
    assert_eq!(patched.json().unwrap()["permission"], "edit");
    let mut late = call("DELETE", &path);
    late.headers.push(("If-Match".into(), "99".into()));
    assert_eq!(server.owner.call(&late).unwrap().status, 412);
    assert_eq!(server.owner.call(&call("DELETE", &path)).unwrap().status, 204);
    assert_eq!(server.owner.call(&call("GET", &path)).unwrap().status, 404);
    let mut bibtex = call("GET", "records?size=1");
    bibtex
        .headers
        .push(("Accept".into(), "application/x-nope".into()));
    assert_eq!(server.owner.call(&bibtex).unwrap().status, 406);
}

fn all_pages_of_a_list_are_fetched(server: &Server) {
    let slug = unique("pages");
    for n in 0..3 {
        let document = crate::communities::community_document(&format!("{slug}-{n}"));
        server.owner.create_community(&document).unwrap();
    }
    let path = format!("communities?q=slug:{slug}*&size=2");
    let count = || {
        let mut slugs = Vec::new();
        server
            .guest
            .call_pages(&call("GET", &path), |page| {
                let value = page.json().unwrap();
                for hit in value["hits"]["hits"].as_array().unwrap() {
                    slugs.push(hit["slug"].as_str().unwrap().to_owned());
                }
                Ok(true)
            })
            .unwrap();
        slugs.sort();
        slugs.dedup();
        slugs.len()
    };
    crate::server::eventually("all three are found", || count() == 3);
}

crate::on_both_one_at_a_time![
    any_endpoint_is_called_with_the_token,
    all_pages_of_a_list_are_fetched
];
