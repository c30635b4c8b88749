//! Pages, as browsers are told to treat them, and as GraphiQL works in Chromium under that.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::auth::guarded_with;
use crate::support::stack::{Server, Setup, Stack};

async fn open(arguments: &[&str]) -> (Stack, Server) {
    let mut stack = Stack::new(Setup::Embedded).await;
    stack.arguments = arguments.iter().map(ToString::to_string).collect();
    let server = stack.serve().await;
    (stack, server)
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let request = http.get(format!("{}{path}", server.url));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_told_to_make_nothing_of_what_they_get() {
    for (_stack, server) in [open(&[]).await, guarded_with(&[]).await] {
        for path in ["/graphiql", "/graphiql/page.js", "/", "/graphql?query={__typename}", "/readyz", "/metrics", "/no"]
        {
            let response = get(&server, path, &[]).await;
            let header = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!(
                (header("x-content-type-options"), header("referrer-policy")),
                ("nosniff", "no-referrer"),
                "{path}"
            );
            let policy = header("content-security-policy");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{path}: {policy}"
            );
            let scripts = policy.split(';').find(|part| part.trim().starts_with("script-src")).unwrap_or_default();
            assert!(!scripts.contains("unsafe") && !scripts.contains('*'), "{path}: {policy}");
        }
        let page = get(&server, "/graphiql", &[]).await.text().await.unwrap();
        for tag in page.split("<script").skip(1) {
            assert!(tag.starts_with(" src=") && tag.contains("></script>"), "{tag}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_can_be_left_out() {
    let (_stack, server) = open(&["--graphiql", "off"]).await;
    for path in ["/graphiql", "/graphiql/page.js", "/graphiql/assets/graphiql.min.js", "/"] {
        assert_eq!(get(&server, path, &[]).await.status(), 404, "{path}");
    }
    assert!(!server.log().contains("/graphiql"), "{}", server.log());
    assert_eq!(get(&server, "/graphql?query={__typename}", &[]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_server_takes_nothing_from_other_sites() {
    let (_stack, server) = open(&["--allow-origin", "https://shop.example"]).await;
    let image = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for path in
        ["/graphql?query={__typename}", "/graphql/stream?query={__typename}", "/metrics", "/readyz", "/graphiql"]
    {
        let refused = get(&server, path, &image).await;
        assert_eq!(refused.status(), 403, "{path}");
        let body: Value = refused.json().await.unwrap();
        assert_eq!(body["errors"][0]["extensions"]["argument"], "origin", "{body}");
    }
    assert_eq!(get(&server, "/graphql?query={__typename}", &link).await.status(), 403);
    assert_eq!(get(&server, "/graphiql", &link).await.status(), 200);
    assert_eq!(get(&server, "/", &link).await.status(), 307);
    let allowed = [("sec-fetch-site", "cross-site"), ("origin", "https://shop.example")];
    assert_eq!(get(&server, "/graphql?query={__typename}", &allowed).await.status(), 200);
    assert_eq!(get(&server, "/graphql?query={__typename}", &[("sec-fetch-site", "same-origin")]).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_names_one_host() {
    for (_stack, server) in [open(&[]).await, guarded_with(&[]).await] {
        let address = server.url.trim_start_matches("http://");
        for (hosts, status) in
            [(vec![address], "200"), (vec![address, "evil.example"], "400"), (vec![address, address], "400")]
        {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
            let request = format!("GET /healthz HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert_eq!(answer.split(' ').nth(1), Some(status), "{hosts}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_link_leads_out_of_the_folder_of_assets() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["graphiql.min.js", "graphiql.min.css", "react.production.min.js", "react-dom.production.min.js"];
    for name in names {
        std::fs::write(folder.path().join(name), format!("/* {name} */")).unwrap();
    }
    std::fs::write(folder.path().join("other.txt"), "not asked for").unwrap();
    let assets = folder.path().to_str().unwrap();
    {
        let (_stack, server) = open(&["--graphiql-assets", assets]).await;
        for name in names {
            let served = get(&server, &format!("/graphiql/assets/{name}"), &[]).await;
            let media_type = served.headers()["content-type"].to_str().unwrap().to_owned();
            assert!(media_type.starts_with(if name.ends_with("css") { "text/css" } else { "text/javascript" }));
            assert_eq!(served.text().await.unwrap(), format!("/* {name} */"));
        }
        assert_eq!(get(&server, "/graphiql/assets/other.txt", &[]).await.status(), 404);
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "secret").unwrap();
        std::fs::remove_file(folder.path().join(names[0])).unwrap();
        std::os::unix::fs::symlink(&secret, folder.path().join(names[0])).unwrap();
        let served = get(&server, &format!("/graphiql/assets/{}", names[0]), &[]).await.text().await.unwrap();
        assert_ne!(served, "secret");
    }
    let stack = Stack::new(Setup::Embedded).await;
    let output =
        stack.command().args(["serve", "--listen", "127.0.0.1:0", "--graphiql-assets", assets]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("scripts/graphiql-assets"), "{said}");
}
