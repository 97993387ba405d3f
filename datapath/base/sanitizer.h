// Whether this is compiled with a sanitizer that watches memory, as GCC and clang tell it. Who cuts what it hands out
// from larger pieces leaves that to the library then, so that the sanitizer knows each allocation.
#pragma once

namespace vswitch {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace vswitch
