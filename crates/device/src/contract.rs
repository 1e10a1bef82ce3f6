//! The contracts as tests: each suite takes a device and fails, naming the sentence, if the device
//! breaks its trait's contract. Run on every backend.
