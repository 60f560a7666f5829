//! Owns the way from an Ethernet frame to the bytes that may hold a magic packet.
