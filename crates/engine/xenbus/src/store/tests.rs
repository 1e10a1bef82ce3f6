//! XenStore's codec and client, as traces and as properties.

mod client;
mod codec;
mod fuzz;
