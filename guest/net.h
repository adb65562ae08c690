/* Addresses and routes of a VM. */
#pragma once
#include "spec.h"

/* What cannot be set is told in a note: a machine without a route still runs. */
void net_up(const struct spec *spec);
