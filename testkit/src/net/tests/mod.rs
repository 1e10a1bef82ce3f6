mod lane;
mod network;
mod nic;
mod replay;
mod world;
