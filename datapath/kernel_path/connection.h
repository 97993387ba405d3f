/* What the kernel path's eBPF programs and the daemon share: the memory layout of a connection. C and C++.
 *
 * A "connection" here is one direction of a TCP or UDP connection, as it comes in by one device. Byte order: fields
 * with "be" in their comment are as on the wire, all others are the host's.
 */
#pragma once

#include <linux/types.h>

/* Everything that a flow may look at to tell packets of TCP and UDP apart, as far as the kernel path takes part (a flow
 * that looks at more has its connections forwarded by the daemon). Compared and hashed as bytes: no padding. */
struct kernel_connection_key {
  __u32 in_ifindex;
  __u8 eth_dst[6];
  __u8 eth_src[6];
  __u16 eth_type;  /* be; 0x0800 or 0x86dd */
  __u16 vlan_tpid; /* be; of the only tag; 0: none */
  __u16 vlan_tci;  /* be; with the bit 0x1000 always set, as in a flow key; 0: no tag */
  __u8 proto;
  __u8 tos;
  __u16 src_port; /* be */
  __u16 dst_port; /* be */
  __u32 zero;
  __u8 src[16]; /* IPv4: the first four, the others are 0 */
  __u8 dst[16];
};

/* An element of the array `connections`, which the daemon maps into its memory. Written by the daemon, and,
 * `state` apart, only while no program looks at it; what the programs write is marked. */
struct kernel_connection {
  struct kernel_connection_key key;
  /* ---- second line */
  __u32 state;       /* lowest two bits: see below. The others tell uses of the element apart; 0: stopped */
  __u32 out_ifindex; /* where its packets go */
  __u32 max_length;  /* of a frame (its tag not counted), or of each segment of a super-frame */
  __u32 tcp_flags;   /* programs: all seen */
  __u64 packets;     /* programs: sent; a super-frame counts once */
  __u64 bytes;       /* programs: of those, with tags */
  __u64 full;        /* programs: refused by the device's queue */
  __u32 failed;      /* programs: refused for another reason (the device is down or gone) */
  __u32 overruled;   /* programs: another program of the host took the packet before it could be sent */
  __u64 lost_bytes;  /* programs: of all that were not sent */
  __u64 used;        /* programs: when the last packet came, in ns of CLOCK_MONOTONIC (a few ms late) */
};

/* An element of the array `encapsulations`: what the packets of the connection with the same number get in front of
 * them, if its state says that they are to be encapsulated. Written by the daemon before the connection is inserted. */
struct kernel_encapsulation {
  /* Outer IPv4, UDP and VXLAN, inner Ethernet with its tag: all that there is, but lengths and IPv4 checksum, which are
   * 0. */
  __u8 header[56];
  __u32 header_length; /* 50, or 54 with a tag */
  __u32 ip_sum;        /* of the IPv4 header's 16-bit words, as this host reads them from memory */
  __u32 mark;          /* of the outer packet, ... */
  __u32 priority;      /* ... and its place in queueing disciplines */
  /* As struct bpf_redir_neigh: whose MAC address the outer frame gets. */
  __u32 next_hop_family;
  __u8 next_hop[16]; /* be; IPv4: the first four */
  __u32 zero;        /* the kernel's elements are multiples of eight bytes */
};

#define KERNEL_PATH_CONNECTIONS 32768 /* elements of the arrays */
/* In `state`: */
#define KERNEL_CONNECTION_ACTIVE 1u
#define KERNEL_CONNECTION_ENCAPSULATED 2u
/* The longest frame, without its tag, that fits an IPv4 datagram behind UDP, VXLAN and a tag. */
#define KERNEL_ENCAPSULATED_MAX (65535 - 20 - 8 - 8 - 4)
/* The same for one that is no super-frame: with what is put in front of it, the kernel lets it become no longer than
 * four pages hold besides its book-keeping. That is 16,384 bytes, less 832 at most (45 fragments), where pages have
 * 4,096 bytes, and more elsewhere. */
#define KERNEL_ENCAPSULATED_SINGLE_MAX 15000
