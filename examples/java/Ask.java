import java.util.List;
import shop.client.ApiClient;
import shop.client.ApiException;
import shop.client.api.EndpointsApi;
import shop.client.model.Label;
import shop.client.model.LabelRequest;
import shop.client.model.ReturnsPrediction;
import shop.client.model.ReturnsPredictions;
import shop.client.model.ReturnsRow;
import shop.client.model.ReturnsRows;

/** Asks the shop of {@code mainspring new shop} whether customers come back, one and many, and says what became of one. */
public class Ask {
    public static void main(String[] arguments) throws ApiException {
        ApiClient client = new ApiClient();
        client.updateBaseUri(arguments[0]);
        EndpointsApi endpoints = new EndpointsApi(client);

        ReturnsRow row = new ReturnsRow().customer("c1").amount(12.5);
        ReturnsPrediction one = endpoints.predictReturns(row, false);
        System.out.println(one.getModel() + " " + one.getPrediction() + " " + one.getScore());

        ReturnsRow unknown = new ReturnsRow().customer("nobody").amount(null);
        ReturnsPredictions many = endpoints.predictReturnsBatch(new ReturnsRows().rows(List.of(row, unknown)), false);
        System.out.println(many.getPredictions().size() + " " + many.getPredictions().get(0).getScore());

        Label label = new Label().id(one.getId()).value(true).at(java.time.OffsetDateTime.now());
        System.out.println(endpoints.label(new LabelRequest().labels(List.of(label))).getAccepted());

        try {
            endpoints.predictReturns(new ReturnsRow().customer("c1").amount(Double.NaN), false);
        } catch (ApiException refused) {
            System.out.println(refused.getCode());
        }
    }
}
