//! Attacks beside an honest transfer: each is a test with what it may cost the victim, and the honest
//! connection beside it survives. docs/network.md has the table; what each layer does by itself is
//! tested beside the layer.

mod blind;
mod floods;
mod forge;
mod fragments;
mod neighbours;
mod peer;
mod peers;
mod sight;
mod stage;
