/* Little-endian numbers at any address. */
#pragma once
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire and this machine are little-endian");

#define DEFINE_BYTES(bits)                                          \
  static inline uint##bits##_t get##bits(const void *from) {        \
    uint##bits##_t value;                                           \
    memcpy(&value, from, sizeof value);                             \
    return value;                                                   \
  }                                                                 \
  static inline void put##bits(void *to, uint##bits##_t value) {    \
    memcpy(to, &value, sizeof value);                               \
  }
DEFINE_BYTES(16)
DEFINE_BYTES(32)
DEFINE_BYTES(64)
#undef DEFINE_BYTES
