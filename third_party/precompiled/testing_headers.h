// What tests include besides.

#ifndef TRIREME_THIRD_PARTY_PRECOMPILED_TESTING_HEADERS_H_
#define TRIREME_THIRD_PARTY_PRECOMPILED_TESTING_HEADERS_H_

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "third_party/precompiled/standard_headers.h"

#endif  // TRIREME_THIRD_PARTY_PRECOMPILED_TESTING_HEADERS_H_
