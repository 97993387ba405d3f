// Moves the outermost VLAN tag of what a device sends from the frame into the packet's metadata, where a VLAN device or
// a host with offloads would have put it. What is too short for the kernel to take a tag off again stays as it is.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
//
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define MIN_BEHIND_TAG 2  // bytes; the kernel takes no tag off a frame that ends before

static int is_tag(__be16 type) { return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD); }

SEC("tc")
int hold_tags_aside(struct __sk_buff* skb) {
  struct vlan {
    __be16 type, tci;
  } tags[2] = {};
  const int at = 2 * ETH_ALEN;
  if (skb->vlan_present || bpf_skb_load_bytes(skb, at, &tags[0], sizeof tags[0]) != 0 || !is_tag(tags[0].type)) {
    return TC_ACT_OK;
  }
  bpf_skb_load_bytes(skb, at + sizeof tags[0], &tags[1].type, sizeof tags[1].type);
  // Taking one off moves the next aside, for which there must be room, too.
  const __u32 count = is_tag(tags[1].type) ? 2 : 1;
  if (skb->len < ETH_HLEN + count * sizeof tags[0] + MIN_BEHIND_TAG) return TC_ACT_OK;
  if (bpf_skb_vlan_pop(skb) == 0) bpf_skb_vlan_push(skb, tags[0].type, bpf_ntohs(tags[0].tci));
  return TC_ACT_OK;
}

char license_text[] SEC("license") = "GPL";
