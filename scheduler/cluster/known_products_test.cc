#include "scheduler/cluster/known_products.h"

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(KnownProducts, HaveThePeaksOfTheirDataSheets) {
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA H100 80GB HBM3", 2), 989e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA H100 80GB HBM3", 4), 67e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA H100 80GB HBM3", 4, /*tf32=*/true),
            494.5e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA A100-SXM4-40GB", 2), 312e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA H200", 2), 989e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA H200", 1), 1979e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA B200", 2), 2250e12);
  EXPECT_EQ(PeakFlopsOfProduct("NVIDIA GeForce RTX 4090", 2), 165e12);
}

// The planner takes no cluster whose devices reach more than their peak.
TEST(KnownProducts, WhatADeviceReachedIsNotAboveItsPeak) {
  EXPECT_EQ(PeakFlopsOfDevice(150e12, "NVIDIA GeForce RTX 4090", 2), 165e12);
  EXPECT_EQ(PeakFlopsOfDevice(172e12, "NVIDIA GeForce RTX 4090", 2), 172e12);
  EXPECT_EQ(
      PeakFlopsOfDevice(400e12, "NVIDIA H100 80GB HBM3", 4, /*tf32=*/true),
      494.5e12);
  EXPECT_EQ(PeakFlopsOfDevice(3e12, "", 2), 3e12);
}

// A wrong utilization is worse than none.
TEST(KnownProducts, OthersHaveNone) {
  EXPECT_FALSE(PeakFlopsOfProduct("NVIDIA H200", 8).has_value());
  // An A100 has no products of FP8.
  EXPECT_FALSE(PeakFlopsOfProduct("NVIDIA A100-SXM4-40GB", 1).has_value());
  for (const char* product : {"", "cpu", "NVIDIA H100 PCIe", "NVIDIA H200 NVL",
                              "NVIDIA GeForce RTX 4090 D", "NVIDIA H100"}) {
    EXPECT_FALSE(PeakFlopsOfProduct(product, 2).has_value()) << product;
  }
}

// A plan for H100s on what is none would be checked as if it were well.
TEST(KnownProducts, NamesOfClustersAreOfProductsOrProcessors) {
  EXPECT_TRUE(CanBe("H100", "NVIDIA H100 80GB HBM3"));
  EXPECT_FALSE(CanBe("H100", "NVIDIA H200"));
  EXPECT_FALSE(CanBe("H100", "NVIDIA H100 PCIe"));
  EXPECT_FALSE(CanBe("H100", ""));
  EXPECT_TRUE(CanBe("cpu of node3", ""));
  EXPECT_FALSE(CanBe("cpu of node3", "NVIDIA H200"));
  EXPECT_TRUE(CanBe("our slow ones", "NVIDIA H200"));
  EXPECT_TRUE(CanBe("our slow ones", ""));
  EXPECT_TRUE(CanBe("NVIDIA H200 of node3", "NVIDIA H200"));
  EXPECT_FALSE(CanBe("NVIDIA H200 of node3", "NVIDIA H100 80GB HBM3"));
  EXPECT_FALSE(CanBe("NVIDIA H200 of node3", ""));
}

}  // namespace
}  // namespace trireme
