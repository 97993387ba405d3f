// Every reason for which a packet may end without being sent, as one X-list: VSWITCH_DROP(name, "what it means").
//
// The name is the outside contract (`dpctl drops`, the API, docs/): add, do not rename. Each drop is counted once,
// under the port the packet came in by (Ledger); a vport's own statistics (rx_errors, tx_dropped, ...) are kept beside
// that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

// clang-format off
#define VSWITCH_DROP_REASONS(X)                                                                              \
  /* receive and extraction */                                                                               \
  X(rx_invalid_packet,          "frame shorter than an Ethernet header or longer than can be handled")      \
  X(rx_no_buffer,               "the packet pool was empty when the frame arrived")                         \
  X(invalid_port,               "the port it came in by, or was sent to, no longer exists")                 \
  X(port_no_receive,            "the port is configured not to receive")                                    \
  X(port_down,                  "the port is administratively down or its device is missing")               \
  /* slow path */                                                                                            \
  X(upcall_queue_full,          "too many packets of its sender, port or flow waited for the slow path")    \
  X(upcall_error,               "translation was not possible (the daemon is stopping)")                    \
  X(userspace_action_error,     "an action needed the slow path and the slow path refused the packet")      \
  X(controller_queue_full,      "every controller that wants the packet-in reads too slowly")               \
  X(no_controller,              "sent to the controller, and nobody listens for the bridge's packet-ins")   \
  /* rules: what translation decided */                                                                      \
  X(of_pipeline,                "the rules say drop: a drop action or an empty action list")                \
  X(no_rule,                    "no rule matched in a table whose miss behaviour is drop")                  \
  X(bridge_not_found,           "the bridge it was destined for is gone")                                   \
  X(recursion_too_deep,         "resubmit or patch ports nested more than 64 deep")                         \
  X(too_many_resubmit,          "more than 4096 resubmits for one packet")                                  \
  X(stack_too_deep,             "push used more than 64 kB of stack")                                       \
  X(no_recirculation_context,   "recirculated after its context had expired")                               \
  X(recirculation_conflict,     "recirculation asked for in two ways at once")                              \
  X(too_many_output_actions,    "the rules produced more datapath actions than one flow may have")          \
  X(invalid_tunnel_metadata,    "tunnel metadata that no tunnel can carry")                                 \
  X(unsupported_packet_type,    "not an Ethernet packet")                                                   \
  X(forwarding_disabled,        "the port may not forward (no-forward, no-flood or port state)")            \
  X(ttl_exceeded,               "dec_ttl on a packet whose TTL is 0 or 1")                                  \
  X(ecn_mismatch,               "tunnel header marked congestion, inner packet is not ECN capable")         \
  /* normal */                                                                                               \
  X(vlan_not_admitted,          "VLAN tag not allowed on the port, or malformed")                           \
  X(reserved_multicast,         "link-local multicast (01:80:c2:00:00:0x) is not forwarded")                \
  X(no_output,                  "destination is on the port it came from, or nobody to flood to")           \
  /* execution */                                                                                            \
  X(recirculation_limit,        "recirculated more often than the datapath allows")                         \
  X(action_too_short,           "packet too short or malformed for the header an action was to change")     \
  X(no_headroom,                "no room to push a header")                                                 \
  X(no_buffer_for_copy,         "a copy (of several outputs, or a clone) found the packet pool empty")      \
  /* transmit */                                                                                             \
  X(tx_too_big,                 "larger than the way out can carry")                                        \
  X(tx_queue_full,              "the device had no room")                                                   \
  X(tx_error,                   "the device refused the frame")                                             \
  X(tunnel_no_metadata,         "metadata-driven tunnel, but the packet has no tunnel metadata")            \
  X(tunnel_no_destination,      "tunnel destination is 0.0.0.0 or ::")                                      \
  X(tunnel_no_route,            "no route to the tunnel destination")                                       \
  X(tunnel_loop,                "the route to the tunnel destination leads back into the tunnel")           \
  X(tunnel_too_big,             "does not fit the path to the tunnel destination")                          \
  X(tunnel_push_error,          "the outer header could not be built")                                      \
  /* tunnel receive */                                                                                       \
  X(tunnel_invalid_header,      "tunnel header with wrong flags or reserved bits")                          \
  X(tunnel_unknown_vni,         "no tunnel port for this VNI and these addresses")                          \
  X(tunnel_inner_too_short,     "no Ethernet header inside the tunnel packet")
// clang-format on

namespace vswitch {

enum class DropReason : uint8_t {
#define VSWITCH_DROP(name, text) name,
  VSWITCH_DROP_REASONS(VSWITCH_DROP)
#undef VSWITCH_DROP
};

inline constexpr size_t kDropReasonCount = 0
#define VSWITCH_DROP(name, text) +1
    VSWITCH_DROP_REASONS(VSWITCH_DROP)
#undef VSWITCH_DROP
    ;

std::string_view drop_reason_name(DropReason reason);
std::string_view drop_reason_text(DropReason reason);

}  // namespace vswitch
