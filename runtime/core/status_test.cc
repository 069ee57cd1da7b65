#include "runtime/core/status.h"

#include <memory>

#include "gtest/gtest.h"

namespace trireme {
namespace {

absl::Status Refuse() { return NotFound("no field '{}'", "lerning_rate"); }

TEST(StatusTest, MakersSetTheCodeAndFormatTheMessage) {
  EXPECT_EQ(OutOfRange("tp is {}, expected 1 to {}", 9, 8),
            absl::OutOfRangeError("tp is 9, expected 1 to 8"));
  EXPECT_EQ(DataLoss("checksum").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(InvalidArgument("x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MessageOf(Refuse()), "no field 'lerning_rate'");
}

TEST(StatusTest, ReturnIfErrorPropagatesAndStops) {
  bool went_on = false;
  const auto caller = [&]() -> absl::Status {
    RETURN_IF_ERROR(absl::OkStatus());
    RETURN_IF_ERROR(Refuse());
    went_on = true;
    return absl::OkStatus();
  };
  EXPECT_EQ(caller(), Refuse());
  EXPECT_FALSE(went_on);
}

TEST(StatusTest, AssignOrReturnMovesTheValueOrPropagates) {
  using Box = std::unique_ptr<int>;
  const auto sum = [](bool fail) -> absl::StatusOr<int> {
    ASSIGN_OR_RETURN(const Box four,
                     absl::StatusOr<Box>(std::make_unique<int>(4)));
    ASSIGN_OR_RETURN(const int three, fail ? absl::StatusOr<int>(Refuse())
                                           : absl::StatusOr<int>(3));
    return *four + three;
  };
  EXPECT_EQ(*sum(false), 7);
  EXPECT_EQ(sum(true).status(), Refuse());
}

TEST(StatusTest, WithContextKeepsTheCodeAndPrependsTheText) {
  EXPECT_EQ(WithContext(Refuse(), "job.textproto:3"),
            absl::NotFoundError("job.textproto:3: no field 'lerning_rate'"));
  EXPECT_TRUE(WithContext(absl::OkStatus(), "job.textproto").ok());
}

}  // namespace
}  // namespace trireme
