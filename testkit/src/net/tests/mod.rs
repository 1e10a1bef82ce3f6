mod lane;
mod network;
mod nic;
mod world;
