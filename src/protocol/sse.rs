//! Server-sent events: bytes in, events out (WHATWG HTML, "event stream interpretation").
