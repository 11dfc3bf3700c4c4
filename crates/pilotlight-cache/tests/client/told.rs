//! What a user is told, in words and in counters.

use pilotlight_cache::client::Client;

use crate::faulty::{Does, Faulty};
use crate::{client, settings};

#[test]
fn every_counter_is_described() {
    let described = include_str!("../../../../docs/plugin.md");
    for (name, _) in Client::new("redis://h", settings()).unwrap().stats() {
        assert!(described.contains(&format!("`{name}`")), "docs/plugin.md lacks {name}");
    }
}

#[test]
fn who_is_turned_away_at_the_greeting_is_told_what_to_write() {
    let form = "Write the password into the URL: pilotlight://:PASSWORD@host";
    for (greeting, expected) in [
        ("-NOAUTH Authentication required.\r\n", form),
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", form),
        (
            "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n",
            "the port for Redis clients, 6379 by default",
        ),
    ] {
        let server = Faulty::that_greets(Does::Closes(greeting.into()), Does::Closes(Vec::new()));
        let client = client(server.port, settings());
        assert_eq!(client.ping(), None);
        let notice = client.notice().unwrap();
        assert!(notice.contains(expected), "{notice}");
    }
}
