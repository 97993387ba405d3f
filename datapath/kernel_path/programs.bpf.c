// The kernel's half of the kernel path (docs/kernel-path.md). Compiled for eBPF at build time and carried by the
// daemon.
//
// A frame that arrives at a port's device meets two programs, one after the other, on the same processor, with nothing
// between them that could handle another frame:
//
//   find     a filter of the port's packet socket. It knows the frame's connection or not. If it does, the socket does
//            not get the frame, and the verdict is left for the next.
//   forward  at the device's TC ingress, before any other. Carries the verdict out: a copy of the frame (the data are
//            shared) leaves by the other device, and the frame goes on into the host, as it does behind a packet
//            socket. If the connection goes into a tunnel, the frame itself is encapsulated and leaves, because the
//            kernel sends no clone to a next hop.
//
// So whatever the filter does not take, and everything when the daemon (and with it the socket) is gone, goes as it
// would without this.
//
// `find` must read a frame exactly as datapath/flow/extract.h does, or leave it to the daemon. It leaves what is not
// plain: options, extension headers, fragments, two tags, wrong lengths. Its twin for the daemon's own use is
// connection_key.cc.

// The others need the first.
// clang-format off
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
// clang-format on

#include "connection.h"

#define TO_DAEMON 0xffffffffu /* the socket gets all of it */
#define TO_NOBODY 0
#define NEXT (-1) /* TCX_NEXT: the programs behind this one decide */
#define SHOT 2    /* TCX_DROP */

#define ETHERNET 14
#define IPV4 20
#define IPV6 40
#define TCP 20
#define UDP 8
#define TAG 4
#define VXLAN 8
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PLAIN_HEADERS (IPV4 + UDP + VXLAN + ETHERNET)
#define TAGGED_HEADERS (PLAIN_HEADERS + TAG)

struct verdict {
  __u32 element; /* of `connections`, plus 1; 0: no verdict */
  __u32 ifindex; /* of the frame that it is about, ... */
  __u32 length;  /* ... and what it is long */
  __u32 out_ifindex;
  __u32 tcp_flags;
  __u32 tag;   /* bytes that a tag held aside adds to the frame */
  __u32 state; /* of the element, then */
  __u32 at;    /* where L4 begins in the frame, ... */
  __u64 l4;    /* ... and what it begins with: a frame of this length that `find` has not seen is another one */
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, KERNEL_PATH_CONNECTIONS);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct kernel_connection_key);
  __type(value, __u32);
} elements SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, KERNEL_PATH_CONNECTIONS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct kernel_connection);
} connections SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, KERNEL_PATH_CONNECTIONS);
  __uint(map_flags, BPF_F_MMAPABLE);
  __type(key, __u32);
  __type(value, struct kernel_encapsulation);
} encapsulations SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct verdict);
} verdicts SEC(".maps");

struct ipv4 {
  __u8 version_and_words, tos;
  __u16 total;
  __u16 id, fragment;
  __u8 ttl, proto;
  __u16 checksum;
  __u8 src[4], dst[4];
};

struct ipv6 {
  __u32 first;
  __u16 payload;
  __u8 next, hops;
  __u8 src[16], dst[16];
};

struct tcp {
  __u16 src, dst;
  __u32 seq, ack;
  __u8 offset, flags;
  __u16 window, checksum, urgent;
};

/* Where L4 begins, what belongs to it of the datagram, and what was read of it. */
struct l4 {
  __u32 at, size, header, flags;
};

static __always_inline int read_ipv4(struct __sk_buff* skb, struct kernel_connection_key* key, struct l4* l4) {
  struct ipv4 ip;
  if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof ip) != 0) return 0;
  const __u32 left = skb->len - ETHERNET, total = bpf_ntohs(ip.total);
  if (ip.version_and_words != 0x45 || total < IPV4 || total > left || left - total > 0xffff) return 0;
  if ((ip.fragment & bpf_htons(0x3fff)) != 0) return 0;
  __builtin_memcpy(key->src, ip.src, 4);
  __builtin_memcpy(key->dst, ip.dst, 4);
  key->proto = ip.proto;
  key->tos = ip.tos;
  l4->at = ETHERNET + IPV4;
  l4->size = total - IPV4;
  return 1;
}

static __always_inline int read_ipv6(struct __sk_buff* skb, struct kernel_connection_key* key, struct l4* l4) {
  struct ipv6 ip;
  if (bpf_skb_load_bytes(skb, ETHERNET, &ip, sizeof ip) != 0) return 0;
  const __u32 left = skb->len - ETHERNET - IPV6, payload = bpf_ntohs(ip.payload), first = bpf_ntohl(ip.first);
  if (first >> 28 != 6 || payload > left || left - payload > 0xffff) return 0;
  __builtin_memcpy(key->src, ip.src, 16);
  __builtin_memcpy(key->dst, ip.dst, 16);
  key->proto = ip.next;
  key->tos = first >> 20;
  l4->at = ETHERNET + IPV6;
  l4->size = payload;
  return 1;
}

static __always_inline int read_l4(struct __sk_buff* skb, struct kernel_connection_key* key, struct l4* l4) {
  struct tcp tcp;
  if (key->proto == PROTO_TCP) {
    if (l4->size < TCP || bpf_skb_load_bytes(skb, l4->at, &tcp, TCP) != 0) return 0;
    l4->header = (tcp.offset >> 4) * 4;
    l4->flags = (tcp.offset & 0xf) << 8 | tcp.flags;
    if (l4->header < TCP || l4->header > l4->size) return 0;
  } else if (key->proto == PROTO_UDP) {
    if (l4->size < UDP || bpf_skb_load_bytes(skb, l4->at, &tcp, UDP) != 0) return 0;
    l4->header = UDP;
    l4->flags = 0;
  } else {
    return 0;
  }
  key->src_port = tcp.src;
  key->dst_port = tcp.dst;
  return 1;
}

static __always_inline int read_frame(struct __sk_buff* skb, struct kernel_connection_key* key, struct l4* l4) {
  if (skb->len < ETHERNET + IPV4 + UDP) return 0;
  /* Addresses and type lie in the key as they lie in the frame. */
  if (bpf_skb_load_bytes(skb, 0, key->eth_dst, ETHERNET) != 0) return 0;
  key->in_ifindex = skb->ifindex;
  if (skb->vlan_present) {
    key->vlan_tpid = skb->vlan_proto;
    key->vlan_tci = bpf_htons(skb->vlan_tci | 0x1000);
  }
  if (key->eth_type == bpf_htons(0x0800)) {
    if (!read_ipv4(skb, key, l4)) return 0;
  } else if (key->eth_type == bpf_htons(0x86dd)) {
    if (skb->len < ETHERNET + IPV6 + UDP || !read_ipv6(skb, key, l4)) return 0;
  } else {
    return 0;
  }
  return read_l4(skb, key, l4);
}

static __always_inline int same_key(const struct kernel_connection_key* a, const struct kernel_connection_key* b) {
  const __u64 *x = (const void*)a, *y = (const void*)b;
  __u64 difference = 0;
#pragma unroll
  for (int i = 0; i < (int)(sizeof *a / 8); ++i) difference |= x[i] ^ y[i];
  return difference == 0;
}

/* As fits_mtu() in datapath/vport/tx_finish.h; both sides without the tag. */
static __always_inline int fits(struct __sk_buff* skb, const struct l4* l4, __u32 max_length) {
  if (skb->len <= max_length) return 1;
  return skb->gso_size != 0 && l4->at + l4->header + skb->gso_size <= max_length;
}

/* Of the tag, the headers that are put in front know all but the drop eligible bit. */
static __always_inline int can_be_encapsulated(struct __sk_buff* skb) {
  const __u32 longest = skb->gso_size != 0 ? KERNEL_ENCAPSULATED_MAX : KERNEL_ENCAPSULATED_SINGLE_MAX;
  return skb->len <= longest && !(skb->vlan_present && (skb->vlan_tci & 0x1000));
}

SEC("socket")
int find(struct __sk_buff* skb) {
  const __u32 zero = 0;
  struct verdict* verdict = bpf_map_lookup_elem(&verdicts, &zero);
  if (!verdict) return TO_DAEMON;
  if (verdict->element != 0) {
    /* The frame before this one never reached `forward`. */
    const __u32 at = verdict->element - 1;
    struct kernel_connection* before = bpf_map_lookup_elem(&connections, &at);
    if (before && before->state == verdict->state) {
      __sync_fetch_and_add(&before->overruled, 1);
      __sync_fetch_and_add(&before->lost_bytes, verdict->length + verdict->tag);
    }
    verdict->element = 0;
  }
  struct kernel_connection_key key = {};
  struct l4 l4 = {};
  if (!read_frame(skb, &key, &l4)) return TO_DAEMON;
  const __u32* element = bpf_map_lookup_elem(&elements, &key);
  if (!element) return TO_DAEMON;
  const __u32 at = *element;
  struct kernel_connection* connection = bpf_map_lookup_elem(&connections, &at);
  if (!connection) return TO_DAEMON;
  const __u32 state = *(volatile __u32*)&connection->state;
  if ((state & KERNEL_CONNECTION_ACTIVE) == 0) return TO_DAEMON;
  /* The hash's own element may have been used anew between finding and reading it. */
  if (!same_key(&connection->key, &key)) return TO_DAEMON;
  if (!fits(skb, &l4, connection->max_length)) return TO_DAEMON; /* which drops it, with a reason */
  if ((state & KERNEL_CONNECTION_ENCAPSULATED) && !can_be_encapsulated(skb)) return TO_DAEMON;
  verdict->ifindex = skb->ifindex;
  verdict->length = skb->len;
  verdict->out_ifindex = connection->out_ifindex;
  verdict->tcp_flags = l4.flags;
  verdict->tag = skb->vlan_present ? TAG : 0;
  verdict->state = state;
  verdict->at = l4.at;
  if (bpf_skb_load_bytes(skb, l4.at, &verdict->l4, sizeof verdict->l4) != 0) return TO_DAEMON;
  verdict->element = at + 1;
  return TO_NOBODY;
}

/* Puts `size` bytes of outer headers and inner Ethernet header in front of the packet. What was its Ethernet header
 * stays in front of them, as room for the outer one. */
static __always_inline int push_headers(struct __sk_buff* skb, const struct kernel_encapsulation* encapsulation,
                                        const __u32 size) {
  const __u64 inner_ethernet = size - IPV4 - UDP - VXLAN;
  const __u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
                      BPF_F_ADJ_ROOM_ENCAP_L2_ETH | BPF_F_ADJ_ROOM_ENCAP_L2(inner_ethernet);
  if (bpf_skb_adjust_room(skb, (__s32)size, BPF_ADJ_ROOM_MAC, flags) != 0) return 0;
  struct {
    struct ipv4 ip;
    __u16 src, dst, length, checksum;
    __u8 rest[TAGGED_HEADERS - IPV4 - UDP];
  } header;
  __builtin_memcpy(&header, encapsulation->header, size);
  const __u32 total = skb->len - ETHERNET;
  header.ip.total = bpf_htons(total);
  header.length = bpf_htons(total - IPV4);
  __u32 sum = encapsulation->ip_sum + header.ip.total;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  header.ip.checksum = ~sum;
  return bpf_skb_store_bytes(skb, ETHERNET, &header, size, BPF_F_RECOMPUTE_CSUM) == 0;
}

static __always_inline int encapsulate(struct __sk_buff* skb, const struct kernel_encapsulation* encapsulation) {
  if (encapsulation->header_length != TAGGED_HEADERS) return push_headers(skb, encapsulation, PLAIN_HEADERS);
  /* The tag is held aside: this forgets it. */
  if (bpf_skb_vlan_pop(skb) != 0) return 0;
  return push_headers(skb, encapsulation, TAGGED_HEADERS);
}

/* Sends the frame itself, encapsulated: what the host would do with it ends here. The kernel finds the next hop's
 * address, and keeps packets meanwhile; what becomes of them is not known here. */
static __always_inline int send_encapsulated(struct __sk_buff* skb, struct kernel_connection* connection, __u32 at,
                                             __u64 bytes, __u32 out_ifindex) {
  struct kernel_encapsulation* encapsulation = bpf_map_lookup_elem(&encapsulations, &at);
  if (!encapsulation) return SHOT;
  if (!encapsulate(skb, encapsulation)) {
    __sync_fetch_and_add(&connection->failed, 1);
    __sync_fetch_and_add(&connection->lost_bytes, bytes);
    return SHOT;
  }
  __sync_fetch_and_add(&connection->packets, 1);
  __sync_fetch_and_add(&connection->bytes, bytes);
  skb->mark = encapsulation->mark;
  skb->priority = encapsulation->priority;
  struct bpf_redir_neigh next_hop;
  next_hop.nh_family = encapsulation->next_hop_family;
  __builtin_memcpy(next_hop.ipv6_nh, encapsulation->next_hop, sizeof next_hop.ipv6_nh);
  return bpf_redirect_neigh(out_ifindex, &next_hop, sizeof next_hop, 0);
}

SEC("tc")
int forward(struct __sk_buff* skb) {
  const __u32 zero = 0;
  struct verdict* verdict = bpf_map_lookup_elem(&verdicts, &zero);
  if (!verdict || verdict->element == 0) return NEXT;
  if (verdict->ifindex != skb->ifindex || verdict->length != skb->len) return NEXT;
  __u64 l4;
  if (bpf_skb_load_bytes(skb, verdict->at, &l4, sizeof l4) != 0 || l4 != verdict->l4) return NEXT;
  const __u32 at = verdict->element - 1, flags = verdict->tcp_flags;
  const __u32 out_ifindex = verdict->out_ifindex, state = verdict->state;
  const __u64 bytes = verdict->length + verdict->tag;
  verdict->element = 0;
  struct kernel_connection* connection = bpf_map_lookup_elem(&connections, &at);
  if (!connection) return NEXT;
  connection->used = bpf_ktime_get_coarse_ns();
  if ((connection->tcp_flags & flags) != flags) __sync_fetch_and_or(&connection->tcp_flags, flags);
  if (state & KERNEL_CONNECTION_ENCAPSULATED) return send_encapsulated(skb, connection, at, bytes, out_ifindex);
  const long error = bpf_clone_redirect(skb, out_ifindex, 0);
  if (error == 0 || error == 2 /* sent, but the queue is getting long */) {
    __sync_fetch_and_add(&connection->packets, 1);
    __sync_fetch_and_add(&connection->bytes, bytes);
  } else {
    if (error > 0) {
      __sync_fetch_and_add(&connection->full, 1);
    } else {
      __sync_fetch_and_add(&connection->failed, 1);
    }
    __sync_fetch_and_add(&connection->lost_bytes, bytes);
  }
  return NEXT;
}

/* Only helpers that ask for no licence are used. */
char programs_license[] SEC("license") = "Apache-2.0";
