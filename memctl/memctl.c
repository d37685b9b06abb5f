#include "memctl/memctl.h"
