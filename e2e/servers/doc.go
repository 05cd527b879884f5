// Package servers runs the real servers of a Sigstore deployment for tests: Rekor
// v1 over Trillian, Rekor v2, Fulcio, and the OpenID provider that Fulcio asks.
// Nothing leaves the machine, nothing outlives the test.
//
// Rekor and Fulcio are programs of their own, installed once for each version
// (see Binary). Trillian and Redis run inside the test process, in memory. In
// front of every log stands a small HTTP server with a stable address for each
// reader, so that a shard can be rotated under the readers' feet and their polls
// can be counted.
package servers
